/**
 * The fields of a dialog.
 *
 * A control has: `element`; `name`; `read()`, which returns the value, or a promise of it, and throws FieldProblem if
 * there is none; `show(violations)`, which marks what is wrong; and `clear()`, which takes the marks away.
 */

import { h, uniqueId } from "../lib/dom.js";
import { parseMoney } from "../lib/money.js";
import { field } from "../lib/ui.js";
import { itemsEditor } from "./items_editor.js";
import { mapEditor } from "./map_editor.js";
import { userPicker } from "./user_picker.js";

// Suggestions only: the service knows all currencies of ISO 4217.
const CURRENCIES = ["EUR", "USD", "GBP", "CHF", "JPY", "SEK", "PLN", "CAD", "AUD"];

/** A value that cannot be sent. `violations` are as those of a CallError. */
export class FieldProblem extends Error {
  constructor(violations) {
    super(violations.map(({ description }) => description).join("; "));
    this.violations = violations;
  }
}

/** Return the problem of one field. */
export function problem(field, description) {
  return new FieldProblem([{ field, description }]);
}

/**
 * Make the control of a field.
 *
 * @param {object} given `{name, path, kind, label, hint, value, required}`; `kind` is text, textarea, password, checkbox,
 *   money, tags, user, items or map
 * @param {AbortSignal} signal ends look-ups
 */
export function control(given, signal) {
  return { ...KINDS[given.kind](given, signal), name: given.name, path: given.path };
}

const KINDS = {
  text: (given) => textControl(given, h("input", { type: "text", autocomplete: "off" })),
  textarea: (given) => textControl(given, h("textarea", { rows: 5 })),
  password: (given) => textControl(given, h("input", { type: "password", autocomplete: "new-password" })),
  checkbox: checkboxControl,
  money: moneyControl,
  tags: tagsControl,
  user: userPicker,
  items: itemsEditor,
  map: mapEditor,
};

/** Return a labelled input as a control; `read` is still to be added. */
export function labelled({ label, hint, required }, input, { extra } = {}) {
  if (required) {
    input.setAttribute("aria-required", "true");
  }
  const element = field({ label, hint, input, optional: !required });
  if (extra) {
    element.append(extra);
  }
  return {
    element,
    show: (violations) => element.setError(violations.map(({ description }) => description).join("; ")),
    clear: () => element.setError(""),
  };
}

function textControl(given, input) {
  input.value = given.value ?? "";
  return {
    ...labelled(given, input),
    read: () => {
      if (given.required && !input.value.trim()) {
        throw problem(given.path, "must be set");
      }
      return input.value;
    },
  };
}

function checkboxControl({ label, hint, value }) {
  const id = uniqueId("check");
  const error = h("div.field-error", { hidden: true });
  const input = h("input", { type: "checkbox", checked: Boolean(value), "aria-describedby": hint ? id : null });
  return {
    element: h("div.field", null, h("label.check", null, input, label), hint && h("div.hint", { id }, hint), error),
    read: () => input.checked,
    show: (violations) => {
      error.hidden = false;
      error.textContent = violations.map(({ description }) => description).join("; ");
    },
    clear: () => {
      error.hidden = true;
    },
  };
}

/** Return an input for the code of a currency, with suggestions. */
export function currencyInput(value) {
  const list = h(
    "datalist",
    { id: uniqueId("currencies") },
    CURRENCIES.map((code) => h("option", { value: code })),
  );
  const input = h("input.currency", {
    type: "text",
    list: list.id,
    value: value || CURRENCIES[0],
    maxlength: 3,
    size: 4,
    autocomplete: "off",
    autocapitalize: "characters",
    "aria-label": "Currency",
  });
  return { input, list };
}

function moneyControl(given) {
  const amount = h("input", { type: "text", inputmode: "decimal", autocomplete: "off", size: 12 });
  const { input: currency, list } = currencyInput(given.value?.currencyCode);
  const parts = labelled(given, amount);
  const row = h("div.money-row");
  amount.replaceWith(row);
  row.append(amount, currency, list);
  return {
    ...parts,
    read: () => {
      if (!amount.value.trim()) {
        if (given.required) {
          throw problem(given.path, "must be set");
        }
        return null;
      }
      const money = parseMoney(amount.value, currency.value);
      if (!money) {
        throw problem(given.path, "must be an amount such as 10.50");
      }
      return money;
    },
  };
}

function tagsControl(given) {
  const input = h("input", { type: "text", autocomplete: "off" });
  return {
    ...labelled(given, input),
    read: () => {
      const tags = input.value
        .split(",")
        .map((tag) => tag.trim())
        .filter(Boolean);
      if (!tags.length) {
        throw problem(given.path, "must name a tag");
      }
      return tags;
    },
  };
}
