/** The controls of repeated fields and of maps: their elements, and buttons to add and to remove one. */

import { h, icon, replace } from "../../lib/dom.js";
import { announce } from "../../lib/feedback.js";
import { button } from "../../lib/ui.js";
import { fieldsControl, relative } from "./message.js";
import { changed, scalarControl } from "./scalars.js";

// So many are shown as a form; more, such as a thousand ids, are better written as JSON.
const MOST_SHOWN = 100;

/** Return the control of a repeated field. */
export function listControl(schema, field) {
  return rows({
    most: field.rules?.max_items,
    what: "element",
    make: (index) => {
      const control = scalarControl(schema, field) ?? fieldsControl(schema, field.ref);
      const isMessage = !control.input;
      control.input?.setAttribute("aria-label", `${field.name} ${index + 1}`);
      return { control, element: control.element, isMessage };
    },
    read: (made) => made.map(({ control }) => control.get() ?? emptyElement(field)),
    entries: (value) => (Array.isArray(value) ? value : []),
    fill: ({ control }, element) => control.set(element),
    path: (_, index) => `[${index}]`,
  });
}

function emptyElement(field) {
  return field.type === "message"
    ? {}
    : field.type === "bool"
      ? false
      : field.type === "string" || field.type === "bytes"
        ? ""
        : 0;
}

/** Return the control of a map. */
export function mapControl(schema, field) {
  return rows({
    most: field.rules?.max_pairs,
    what: "entry",
    make: (index) => {
      const control = scalarControl(schema, field) ?? fieldsControl(schema, field.ref);
      const key = h("input", {
        type: "text",
        autocomplete: "off",
        spellcheck: "false",
        placeholder: "key",
        "aria-label": `${field.name}: key ${index + 1}`,
      });
      control.input?.setAttribute("aria-label", `${field.name}: value ${index + 1}`);
      control.input?.setAttribute("placeholder", "value");
      return { control, key, element: h("div.map-entry", null, key, control.element), isMessage: !control.input };
    },
    // Of several entries with one key, the last one counts, as in JSON.
    read: (made) =>
      Object.fromEntries(made.map(({ control, key }) => [key.value, control.get() ?? emptyElement(field)])),
    entries: (value) => (typeof value === "object" && value !== null ? Object.entries(value) : []),
    fill: ({ control, key }, [name, element]) => {
      key.value = name;
      control.set(element);
    },
    path: ({ key }) => `[${JSON.stringify(key.value)}]`,
  });
}

function rows({ most, what, make, read, entries, fill, path }) {
  let made = [];
  // What is given beyond the shown ones stays as it is.
  let hidden = null;
  let hiddenCount = 0;
  const list = h("div.rows", null);
  const count = h("span.hint", null);
  const add = button({
    label: `Add ${what}`,
    icon: "plus",
    kind: "small",
    onclick: () => {
      append();
      update();
      changed(list);
      made.at(-1).element.querySelector("input, select, textarea")?.focus();
      made.at(-1).element.matches("input, select, textarea") && made.at(-1).element.focus();
    },
  });

  function append() {
    const row = make(made.length);
    const removing = h(
      "button.button.quiet.icon-only.small",
      {
        type: "button",
        title: "Remove",
        onclick: () => {
          made = made.filter((other) => other !== row);
          row.frame.remove();
          update();
          announce(`Removed, ${made.length} left`);
          changed(list);
          add.focus();
        },
      },
      icon("trash"),
      h("span.visually-hidden", null, `Remove ${what} ${made.length + 1}`),
    );
    row.error = h("div.field-error", { hidden: true });
    row.frame = h(
      "div.row",
      { class: row.isMessage ? "is-message" : "" },
      h("div.row-content", null, row.element, row.error),
      removing,
    );
    made.push(row);
    list.append(row.frame);
    return row;
  }

  function update() {
    const total = hidden ? hiddenCount : made.length;
    count.textContent = most === undefined ? "" : `${total} of at most ${most}`;
    add.disabled = hidden !== null || (most !== undefined && total >= most);
  }

  update();
  return {
    element: h("div", null, list, h("div.rows-footer", null, add, count)),
    get: () => {
      if (hidden) {
        return hidden;
      }
      return made.length ? read(made) : undefined;
    },
    set: (value) => {
      const given = entries(value);
      hidden = given.length > MOST_SHOWN ? value : null;
      hiddenCount = given.length;
      if (hidden) {
        made = [];
        replace(list, h("p.hint", null, `${given.length} of them, which are edited as JSON.`));
      } else {
        // Those that exist are kept, so that the focus and the cursor stay where they are.
        if (made.length > given.length || made.length === 0) {
          made = [];
          list.replaceChildren();
        }
        for (const [index, element] of given.entries()) {
          fill(made[index] ?? append(), element);
        }
      }
      update();
    },
    showErrors: (violations) => {
      for (const [index, row] of made.entries()) {
        const inner = relative(violations, path(row, index));
        const own = inner.filter(({ field }) => field === "");
        replace(
          row.error,
          own.map(({ description }) => h("div", null, description)),
        );
        row.error.hidden = own.length === 0;
        row.control.input &&
          (inner.length
            ? row.control.input.setAttribute("aria-invalid", "true")
            : row.control.input.removeAttribute("aria-invalid"));
        row.control.showErrors(row.control.input ? inner.filter(({ field }) => field) : inner);
      }
    },
  };
}
