/** All views. A view is a module whose default export makes it (see `View` in lib/router.js); it is loaded when shown. */

export const HOME = "/explore";

export const SECTIONS = [
  { id: "explore", label: "Explore", path: "/explore", icon: "explore" },
  { id: "work", label: "Work", path: "/orders", icon: "work" },
  { id: "live", label: "Live", path: "/live", icon: "live" },
];

/** @type {import("./lib/router.js").Route[]} */
export const ROUTES = [
  { path: "/explore", title: "Explore", section: "explore", load: () => import("./explore/index.js") },
  { path: "/explore/history", title: "History", section: "explore", load: () => import("./explore/history.js") },
  {
    path: "/explore/:service/:method",
    title: "Explore",
    section: "explore",
    load: () => import("./explore/method.js"),
  },
  { path: "/orders", title: "Orders", section: "work", load: () => import("./resources/orders_view.js") },
  { path: "/orders/:key", title: "Order", section: "work", load: () => import("./resources/order_view.js") },
  { path: "/users", title: "Users", section: "work", load: () => import("./resources/users_view.js") },
  { path: "/users/:key", title: "User", section: "work", load: () => import("./resources/user_view.js") },
  { path: "/notes", title: "Notes", section: "work", load: () => import("./resources/notes_view.js") },
  { path: "/live", title: "Live", section: "live", load: () => import("./live/live_view.js") },
];
