/** JSON as a tree whose parts can be closed, and as text. */

import { h } from "./dom.js";
import { formatMoney } from "./money.js";
import { formatTime, isTime } from "./time.js";

const OPEN_LEVELS = 3;
// What is made when a part is opened: a page of a thousand orders has a hundred thousand values.
const FIRST_ELEMENTS = 100;

/** Return a value as a tree; times have the local time, and amounts their sum, beside them. */
export function jsonTree(value) {
  return h("div.json-tree", { tabindex: 0, role: "group", "aria-label": "JSON as a tree" }, node(null, value, 0));
}

function node(key, value, level) {
  const label = key === null ? null : [h("span.json-key", null, key), ": "];
  if (value === null || typeof value !== "object") {
    return h("div.json-leaf", null, label, leaf(value));
  }
  const isList = Array.isArray(value);
  const entries = Object.entries(value);
  if (entries.length === 0) {
    return h("div.json-leaf", null, label, isList ? "[]" : "{}");
  }
  const summary = h("summary", null, label, h("span.json-count", null, count(value, entries.length, isList)));
  const body = h("div.json-children", null);
  const element = h("details", { open: level < OPEN_LEVELS }, summary, body);
  const fill = () => {
    if (!body.hasChildNodes()) {
      more(body, entries, level, 0);
    }
  };
  // `toggle` comes later, and also when it is opened by the browser's own search.
  element.addEventListener("toggle", fill);
  if (level < OPEN_LEVELS) {
    fill();
  }
  return element;
}

function more(body, entries, level, from) {
  const next = entries.slice(from, from + FIRST_ELEMENTS);
  body.append(...next.map(([name, inner]) => node(name, inner, level + 1)));
  const left = entries.length - from - next.length;
  if (left > 0) {
    const button = h(
      "button.button.quiet",
      {
        type: "button",
        onclick: () => {
          button.remove();
          more(body, entries, level, from + FIRST_ELEMENTS);
        },
      },
      `Show more (${left} left)`,
    );
    body.append(button);
  }
}

function count(value, length, isList) {
  if (isList) {
    return length === 1 ? "1 element" : `${length} elements`;
  }
  if (typeof value.currencyCode === "string") {
    return formatMoney(value);
  }
  return length === 1 ? "1 field" : `${length} fields`;
}

function leaf(value) {
  const text = h(`span.json-${value === null ? "null" : typeof value}`, null, JSON.stringify(value));
  return isTime(value) ? [text, " ", h("span.json-note", null, formatTime(value, "exact"))] : text;
}
