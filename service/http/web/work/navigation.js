/** The frame of the views of Work: links to its parts, and below them the view. */

import { h } from "../lib/dom.js";

const PARTS = [
  ["orders", "Orders"],
  ["users", "Users"],
  ["notes", "Notes"],
];

/** Return a page of Work; `part` is the one whose link is marked. */
export function workPage(part, ...children) {
  const links = PARTS.map(([name, label]) =>
    h("li", null, h("a", { href: `#/work/${name}`, "aria-current": name === part ? "page" : null }, label)),
  );
  return h("div.page.work", null, h("nav.parts", { "aria-label": "Work" }, h("ul", null, links)), children);
}
