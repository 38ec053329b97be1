/**
 * Shows the view that the hash of the address names, such as `#/explore/history`.
 *
 * The hash never reaches a server. No view puts a credential, or the content of a request, into it.
 */

import { h, replace } from "./dom.js";

/**
 * A route.
 *
 * @typedef {object} Route
 * @property {string} path - `/orders/:id`; a parameter is one segment.
 * @property {string} title - of the document, until the view sets another.
 * @property {string} section - of the navigation, which is marked as current: `explore`, `work` or `live`.
 * @property {() => Promise<{default: View}>} load - imports the module whose default export is the view.
 */

/**
 * A view: makes the content of `main`. It begins with an `h1`, which is focused when the user comes to it.
 *
 * @callback View
 * @param {object} context
 * @param {Record<string, string>} context.params - of the path.
 * @param {URLSearchParams} context.query - after a `?` in the hash.
 * @param {AbortSignal} context.signal - is aborted when the user leaves the view; pass it on to calls and listeners.
 * @param {(title: string) => void} context.setTitle - sets the title of the document.
 * @returns {Node | Promise<Node>}
 */

let current = { path: "", query: new URLSearchParams() };
let leaving = new AbortController();

/** Return the address of a view, for links: `href("/orders", {status: "PENDING"})`. */
export function href(path, query = {}) {
  const given = Object.entries(query).flatMap(([key, value]) =>
    [value]
      .flat()
      .filter((one) => one !== "" && one !== null && one !== undefined)
      .map((one) => [key, String(one)]),
  );
  const text = new URLSearchParams(given).toString();
  return `#${path}${text ? `?${text}` : ""}`;
}

/** Go to a view. With `replace`, the browser's button "back" skips the one that is left. */
export function navigate(path, query = {}, { replace: replaces = false } = {}) {
  const address = href(path, query);
  if (replaces) {
    history.replaceState(null, "", address);
    window.dispatchEvent(new HashChangeEvent("hashchange"));
  } else {
    location.hash = address;
  }
}

/**
 * Change the query of the address without showing the view again, for filters that the view has applied itself; returns
 * the query that is there now.
 */
export function setQuery(query) {
  history.replaceState(null, "", href(current.path, query));
  current.query = parse(location.hash).query;
  return current.query;
}

function parse(hash) {
  const [path, query = ""] = hash.replace(/^#/, "").split(/\?(.*)/s);
  return { path: path || "/", query: new URLSearchParams(query) };
}

/** Return the parameters if a pattern matches a path, else null. */
export function match(pattern, path) {
  const wanted = pattern.split("/");
  const found = path.replace(/\/$/, "").split("/");
  if (wanted.length !== found.length) {
    return null;
  }
  const params = {};
  for (const [index, part] of wanted.entries()) {
    if (part.startsWith(":")) {
      if (!found[index]) {
        return null;
      }
      try {
        params[part.slice(1)] = decodeURIComponent(found[index]);
      } catch {
        // A broken escape names nothing.
        return null;
      }
    } else if (part !== found[index]) {
      return null;
    }
  }
  return params;
}

/**
 * Begin to show views.
 *
 * @param {object} options
 * @param {HTMLElement} options.main - where to show them.
 * @param {Route[]} options.routes
 * @param {string} options.home - the path of the first view.
 * @param {(route: Route | null) => void} options.onRoute - is told the route before its view is made.
 * @param {(error: Error) => Node} options.failed - makes what is shown instead of a view that failed.
 */
export function start({ main, routes, home, onRoute, failed }) {
  let isFirst = true;

  async function show() {
    leaving.abort();
    leaving = new AbortController();
    const { signal } = leaving;
    current = parse(location.hash);
    if (current.path === "/") {
      navigate(home, {}, { replace: true });
      return;
    }
    const found = routes.map((route) => [route, match(route.path, current.path)]).find(([, params]) => params);
    const [route, params] = found ?? [null, {}];
    onRoute(route);
    const setTitle = (title) => {
      if (!signal.aborted) {
        document.title = `${title} · Console`;
      }
    };
    setTitle(route?.title ?? "Not found");
    const busy = setTimeout(() => main.setAttribute("aria-busy", "true"), 150);
    let content;
    try {
      content = route
        ? await (await route.load()).default({ params, query: current.query, signal, setTitle })
        : missing();
    } catch (error) {
      if (signal.aborted) {
        return;
      }
      content = failed(error);
    } finally {
      clearTimeout(busy);
    }
    if (signal.aborted) {
      return;
    }
    main.removeAttribute("aria-busy");
    replace(main, content);
    focusHeading(main, isFirst);
    isFirst = false;
  }

  window.addEventListener("hashchange", show);
  return show();
}

function focusHeading(main, isFirst) {
  // A page that has just been opened begins at its top, as any other page does.
  if (isFirst) {
    return;
  }
  const heading = main.querySelector("h1");
  if (heading) {
    heading.tabIndex = -1;
    heading.focus({ preventScroll: true });
  }
  scrollTo(0, 0);
}

function missing() {
  return h(
    "div.empty",
    null,
    h("h1", null, "There is no such page"),
    h("p", null, "The address names no view of this console."),
    h("p", null, h("a.button", { href: "#/" }, "Go to the first page")),
  );
}
