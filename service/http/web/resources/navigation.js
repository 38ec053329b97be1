/** The frame of the views of Work: links to its parts, and below them the view. */

import { onCredentials } from "../lib/credentials.js";
import { h } from "../lib/dom.js";
import { loadSchema } from "../lib/schema.js";
import { errorPanel, pageHeader } from "../lib/ui.js";

const PARTS = [
  ["orders", "Orders"],
  ["users", "Users"],
  ["notes", "Notes"],
];

/** Make the view again, for example for another caller. */
function showAgain() {
  window.dispatchEvent(new HashChangeEvent("hashchange"));
}

/** Load what explains failures now, because it cannot be loaded when the server is gone. */
export function explainFailures() {
  loadSchema().catch(() => {
    // Failures are shown without an explanation then.
  });
}

/**
 * Return a view of Work, which is made again when the credentials change.
 *
 * @param {string} part the one whose link is marked
 * @param {(context: object) => Node[] | Promise<Node[]>} make makes what is below the links
 * @returns {import("../lib/router.js").View}
 */
export function workView(part, make) {
  return async (context) => {
    onCredentials(showAgain, context.signal);
    explainFailures();
    try {
      return page(part, await make(context));
    } catch (error) {
      if (context.signal.aborted) {
        throw error;
      }
      return page(part, [pageHeader({ title: "This cannot be shown" }), errorPanel(error, { retry: showAgain })]);
    }
  };
}

function page(part, children) {
  const links = PARTS.map(([name, label]) =>
    h("li", null, h("a", { href: `#/${name}`, "aria-current": name === part ? "page" : null }, label)),
  );
  return h("div.page.work", null, h("nav.parts", { "aria-label": "Work" }, h("ul", null, links)), children);
}
