/** A map of texts: a row with a key and a value for each entry. */

import { h, icon } from "../lib/dom.js";
import { problem } from "./controls.js";

/** Return the control of a field of kind `map`. */
export function mapEditor(field) {
  const list = h("ul.map-editor");
  const error = h("div.field-error", { hidden: true });
  const rows = [];

  function add([key, value]) {
    const inputs = {
      key: h("input", { type: "text", value: key, "aria-label": "Key", placeholder: "key", autocomplete: "off" }),
      value: h("input", { type: "text", value, "aria-label": "Value", placeholder: "value", autocomplete: "off" }),
    };
    const remove = h(
      "button.button.icon-only",
      {
        type: "button",
        "aria-label": "Remove entry",
        title: "Remove entry",
        onclick: () => {
          rows.splice(rows.indexOf(inputs), 1);
          element.dispatchEvent(new Event("input", { bubbles: true }));
          row.remove();
          addButton.focus();
        },
      },
      icon("trash"),
    );
    const row = h("li.map-row", null, inputs.key, inputs.value, remove);
    rows.push(inputs);
    list.append(row);
    return inputs;
  }

  const addButton = h(
    "button.button",
    { type: "button", onclick: () => add(["", ""]).key.focus() },
    icon("plus"),
    "Add entry",
  );
  const element = h(
    "fieldset.field",
    null,
    h("legend", null, field.label, h("span.quiet", null, " (optional)")),
    list,
    addButton,
    error,
  );
  for (const entry of Object.entries(field.value)) add(entry);

  return {
    element,
    read: () => {
      const entries = rows
        .map(({ key, value }) => [key.value.trim(), value.value])
        .filter(([key, value]) => key || value);
      const keys = entries.map(([key]) => key);
      if (keys.includes("")) throw problem(field.path, "each value needs a key");
      if (new Set(keys).size < keys.length) throw problem(field.path, "each key can occur once");
      return Object.fromEntries(entries);
    },
    show: (violations) => {
      error.hidden = false;
      error.textContent = violations.map(({ description }) => description).join("; ");
    },
    clear: () => {
      error.hidden = true;
    },
  };
}
