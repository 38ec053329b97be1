/** Pages of a list that the API returns with page tokens, so that only the next page is known. */

import { h, replace } from "../lib/dom.js";
import { button } from "../lib/ui.js";
import { counted, plural } from "../lib/words.js";

/**
 * Return the line below a list: how much is shown, and buttons for other pages.
 *
 * @param {object} options
 * @param {number} options.count how many are on this page
 * @param {string} options.noun `order`
 * @param {string} options.token the token of this page; empty for the first
 * @param {string} options.next the token of the next page; empty on the last
 * @param {(token: string) => void} options.onPage
 * @param {() => Promise<string>} [options.total] counts all, which costs time
 */
export function pager({ count, noun, token, next, onPage, total }) {
  const shown = h("span", null, `${counted(count, noun)} on this page`);
  const counting = h("span", { role: "status" });
  const countButton =
    total &&
    (token || next) &&
    button({
      label: "Count all",
      kind: "quiet",
      onclick: async () => {
        replace(counting, "Counting …");
        try {
          replace(counting, `${await total()} in all`);
        } catch (error) {
          replace(counting, error.message);
        }
      },
    });
  return h(
    "nav.pager",
    { "aria-label": `Pages of ${plural(noun)}` },
    h("span.pager-info", null, shown, countButton, counting),
    h(
      "span.actions",
      null,
      token && button({ label: "First page", icon: "back", onclick: () => onPage("") }),
      next && button({ label: "Next page", onclick: () => onPage(next) }),
    ),
  );
}
