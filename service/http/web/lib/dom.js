/**
 * Makes elements. Nothing here, or anywhere in the console, turns a text into HTML: what the service returns becomes
 * text nodes and attributes only.
 */

const SVG = "http://www.w3.org/2000/svg";

/**
 * Make an element.
 *
 * @param {string} tag - its name, optionally with classes: `div.card.wide`.
 * @param {object | null} attributes - `onclick` and the like are listeners; `true` sets an attribute without a value;
 *   `false`, `null` and `undefined` set none; `class` is added to those of the tag; `dataset` is an object; `value`,
 *   `checked`, `disabled`, `selected` and `indeterminate` are properties.
 * @param {...(Node | string | number | null | undefined | false | Array)} children - texts become text nodes.
 * @returns {HTMLElement}
 */
export function h(tag, attributes = null, ...children) {
  const [name, ...classes] = tag.split(".");
  const element = document.createElement(name);
  element.classList.add(...classes);
  for (const [key, value] of Object.entries(attributes ?? {})) {
    set(element, key, value);
  }
  append(element, children);
  return element;
}

const PROPERTIES = new Set(["value", "checked", "disabled", "selected", "indeterminate", "open"]);

function set(element, key, value) {
  if (value === false || value === null || value === undefined) {
    return;
  }
  if (key === "dataset") {
    Object.assign(element.dataset, value);
  } else if (key.startsWith("on")) {
    element.addEventListener(key.slice(2), value);
  } else if (PROPERTIES.has(key)) {
    element[key] = value;
  } else if (key === "class") {
    element.classList.add(...String(value).split(" ").filter(Boolean));
  } else {
    element.setAttribute(key, value === true ? "" : String(value));
  }
}

/** Append children, as `h` takes them. */
export function append(element, children) {
  for (const child of [children].flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) {
      element.append(child instanceof Node ? child : String(child));
    }
  }
}

/** Replace all children of an element. */
export function replace(element, ...children) {
  element.replaceChildren();
  append(element, children);
}

let lastId = 0;

/** Return an id that no other element has, for labels and descriptions. */
export function uniqueId(prefix = "e") {
  lastId += 1;
  return `${prefix}-${lastId}`;
}

// Paths on a grid of 24 by 24, drawn as lines.
const ICONS = {
  back: "M15 6l-6 6 6 6",
  check: "M5 12.5l4.5 4.5L19 7.5",
  close: "M6 6l12 12M18 6L6 18",
  copy: "M9 9h10v10H9zM5 15V5h10",
  explore: "M8 6l-5 6 5 6M16 6l5 6-5 6M13.5 4l-3 16",
  filter: "M4 6h16M7 12h10M10 18h4",
  history: "M4 12a8 8 0 1 0 2.6-5.9L4 8.5M4 4v4.5h4.5M12 8v4.5l3 1.5",
  info: "M12 11v5M12 8h.01M21 12a9 9 0 1 1-18 0 9 9 0 0 1 18 0z",
  key: "M14.5 9.5h.01M21 9.5a5.5 5.5 0 0 1-7.6 5.1L11 17H9v2H7v2H3v-4l6.4-6.4A5.5 5.5 0 1 1 21 9.5z",
  live: "M3 12h4l3-7 4 14 3-7h4",
  lock: "M6 11h12v9H6zM8.5 11V8a3.5 3.5 0 0 1 7 0v3",
  moon: "M20 14.5A8 8 0 0 1 9.5 4a8 8 0 1 0 10.5 10.5z",
  play: "M8 5.5v13l10.5-6.5z",
  plus: "M12 5v14M5 12h14",
  refresh: "M20 11a8 8 0 0 0-14.3-3.9L4 9M4 4.5V9h4.5M4 13a8 8 0 0 0 14.3 3.9L20 15M20 19.5V15h-4.5",
  search: "M16.5 16.5L21 21M18.5 11a7.5 7.5 0 1 1-15 0 7.5 7.5 0 0 1 15 0z",
  stop: "M7 7h10v10H7z",
  sun: "M12 3v2M12 19v2M3 12h2M19 12h2M5.6 5.6L7 7M17 17l1.4 1.4M18.4 5.6L17 7M7 17l-1.4 1.4M16 12a4 4 0 1 1-8 0 4 4 0 0 1 8 0z",
  system: "M4 5h16v11H4zM9 20h6M12 16v4",
  trash: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13",
  user: "M16 8a4 4 0 1 1-8 0 4 4 0 0 1 8 0zM4.5 20.5c.8-4 3.7-6 7.5-6s6.700 2 7.5 6",
  users:
    "M13 8a4 4 0 1 1-8 0 4 4 0 0 1 8 0zM2 20c.7-3.800 3.300-5.700 7-5.700s6.300 1.900 7 5.700M16 4.400a4 4 0 0 1 0 7.200M18.500 15c2 .8 3.100 2.500 3.500 5",
  warning: "M12 9v5M12 17h.01M12 3.5L2.500 20h19z",
  work: "M5 8h14l-1.200 12H6.200zM8.500 8a3.500 3.500 0 0 1 7 0",
};

/** Return an icon, which screen readers skip. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("class", `icon icon-${name}`);
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

/** Return the paragraphs of a comment, with `code` as code and lines that begin with "- " as a list. */
export function prose(text) {
  return text
    .split("\n\n")
    .filter(Boolean)
    .map((paragraph) => {
      const [first, ...items] = paragraph.split("\n- ");
      const list = items.length
        ? h(
            "ul",
            null,
            items.map((item) => h("li", null, inline(item))),
          )
        : null;
      return [first && h("p", null, inline(first)), list];
    });
}

/** Return a text with `code` as code. */
export function inline(text) {
  return text.split(/(`[^`]+`)/).map((part) => (/^`[^`]+`$/.test(part) ? h("code", null, part.slice(1, -1)) : part));
}
