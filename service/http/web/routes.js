/** All views. A view is a module whose default export makes it (see `View` in lib/router.js); it is loaded when shown. */

export const HOME = "/explore";

export const SECTIONS = [{ id: "explore", label: "Explore", path: "/explore", icon: "explore" }];

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
];
