/** All views. A view is a module whose default export makes it (see `View` in lib/router.js); it is loaded when shown. */

export const HOME = "/explore";

export const SECTIONS = [
  { id: "explore", label: "Explore", path: "/explore", icon: "explore" },
  { id: "work", label: "Work", path: "/work/orders", icon: "work" },
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
  { path: "/work/orders", title: "Orders", section: "work", load: () => import("./work/orders_view.js") },
  { path: "/work/orders/:key", title: "Order", section: "work", load: () => import("./work/order_view.js") },
  { path: "/work/users", title: "Users", section: "work", load: () => import("./work/users_view.js") },
  { path: "/work/users/:key", title: "User", section: "work", load: () => import("./work/user_view.js") },
  { path: "/work/notes", title: "Notes", section: "work", load: () => import("./work/notes_view.js") },
  { path: "/live", title: "Live", section: "live", load: () => import("./live/live_view.js") },
];
