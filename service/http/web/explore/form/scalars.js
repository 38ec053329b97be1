/**
 * Controls for values that are no messages of fields: texts, numbers, enums, times, amounts, …
 *
 * A control has
 * - `element`, and `input`, the element that its label is for;
 * - `get()`, which returns the value as JSON, or undefined for none, and `set(value)`, which shows one;
 * - `showErrors(violations)`, whose paths are relative to it (`""` is the control itself).
 */

import { INTEGERS, WRAPPERS } from "../../lib/check.js";
import { h, replace, uniqueId } from "../../lib/dom.js";
import { decimal, parseMoney } from "../../lib/money.js";
import { newRequestId } from "../../lib/request_ids.js";
import { settableFields, shortName } from "../../lib/schema.js";
import { fromLocalInput, timeZone, toLocalInput } from "../../lib/time.js";
import { button, select } from "../../lib/ui.js";

const MULTILINE = "^[\\r\\n\\t\\P{Cc}]*$";
const CURRENCIES = ["EUR", "USD", "GBP", "CHF", "JPY"];
const MOST_PATHS = 40;

/** Return the control of a single value of a field; null if its message has fields of its own. */
export function scalarControl(schema, field, { siblings = [], presence = false } = {}) {
  const wrapped = WRAPPERS[field.ref];
  const type = wrapped ?? field.type;
  if (field.ref === "google.type.Money") {
    return moneyControl();
  }
  if (field.ref === "google.protobuf.Timestamp") {
    return timeControl();
  }
  if (field.ref === "google.protobuf.FieldMask") {
    return maskControl(schema, siblings);
  }
  if (type === "enum") {
    return enumControl(schema, field);
  }
  if (type === "bool") {
    return presence || wrapped ? optionalBoolControl() : boolControl();
  }
  if (type !== "message") {
    return textControl(field, type);
  }
  if (field.ref === "google.protobuf.Duration") {
    return textControl(field, "string", "1.5s");
  }
  return schema.message(field.ref) ? null : jsonControl();
}

function control(element, input, get, set) {
  return { element, input, get, set, showErrors: () => {} };
}

function textControl(field, type, placeholder = "") {
  const rules = { ...field.rules, ...field.rules?.items, ...field.rules?.values };
  const isNumber = INTEGERS.has(type) || type === "double" || type === "float";
  const isLong = rules.pattern === MULTILINE || (rules.max_len ?? 0) > 1000;
  const input = h(isLong ? "textarea" : "input", {
    type: isLong ? null : field.secret ? "password" : "text",
    rows: isLong ? 3 : null,
    inputmode: isNumber ? (INTEGERS.has(type) ? "numeric" : "decimal") : null,
    autocomplete: field.secret ? "new-password" : "off",
    spellcheck: isLong ? null : "false",
    placeholder: placeholder || (type === "bytes" ? "base64" : null),
    class: rules.uuid || type === "bytes" ? "mono" : "",
  });
  const get = () => {
    const text = isLong || type === "string" ? input.value : input.value.trim();
    if (text === "") {
      return undefined;
    }
    // Numbers of 64 bits are strings in JSON. What is no number stays as it is, so that the check says so.
    const isSmall = isNumber && !type.endsWith("64");
    return isSmall && Number.isFinite(Number(text)) ? Number(text) : text;
  };
  const set = (value) => {
    input.value = value === undefined || value === null ? "" : String(value);
  };
  if (field.name !== "request_id" || !rules.uuid) {
    return control(input, input, get, set);
  }
  const fresh = button({
    label: "New",
    kind: "small",
    onclick: () => {
      set(newRequestId());
      changed(input);
    },
  });
  return control(h("div.with-button", null, input, fresh), input, get, set);
}

/** Tell the form that a control has changed without the user having typed into it. */
export function changed(element) {
  element.dispatchEvent(new Event("input", { bubbles: true }));
}

function boolControl() {
  const input = h("input", { type: "checkbox" });
  return control(
    input,
    input,
    () => input.checked || undefined,
    (value) => {
      input.checked = value === true;
    },
  );
}

function optionalBoolControl() {
  const input = select([["", "not set"], "true", "false"]);
  return control(
    input,
    input,
    () => (input.value ? input.value === "true" : undefined),
    (value) => {
      input.value = typeof value === "boolean" ? String(value) : "";
    },
  );
}

function enumControl(schema, field) {
  const { values } = schema.enums[field.ref];
  const [zero] = values.find(([, , number]) => number === 0) ?? [""];
  const doc = h("div.hint", null);
  const input = select([["", "not set"], ...values.map(([name]) => name).filter((name) => name !== zero)]);
  const update = () => {
    doc.textContent = values.find(([name]) => name === input.value)?.[1].replaceAll("`", "") ?? "";
    doc.hidden = !doc.textContent;
  };
  input.addEventListener("input", update);
  update();
  return control(
    h("div", null, input, doc),
    input,
    () => input.value || undefined,
    (value) => {
      const found = values.find(([name, , number]) => name === value || number === value);
      input.value = found && found[0] !== zero ? found[0] : "";
      update();
    },
  );
}

/** The control of a repeated enum: a box for each value. */
export function enumListControl(schema, field) {
  const { values } = schema.enums[field.ref];
  const boxes = values
    .filter(([, , number]) => number !== 0)
    .map(([name, doc]) => ({ name, box: h("input", { type: "checkbox", value: name }), doc: doc.replaceAll("`", "") }));
  const element = h(
    "div.form-choices",
    null,
    boxes.map(({ name, box, doc }) => h("label.check", { title: doc }, box, h("span.mono", null, name))),
  );
  return {
    element,
    get: () => {
      const chosen = boxes.filter(({ box }) => box.checked).map(({ name }) => name);
      return chosen.length ? chosen : undefined;
    },
    set: (value) => {
      for (const { name, box } of boxes) {
        box.checked = Array.isArray(value) && value.includes(name);
      }
    },
    showErrors: () => {},
  };
}

function timeControl() {
  // What was given, as long as it is not changed: the input has no fractions of a second.
  let exact;
  const utc = h("div.hint", null);
  const input = h("input", { type: "datetime-local", step: 1 });
  const get = () => exact ?? (fromLocalInput(input.value) || undefined);
  const update = () => {
    utc.textContent = get() ? `${get()} (UTC)` : `in the time zone of this browser, ${timeZone()}`;
  };
  input.addEventListener("input", () => {
    exact = undefined;
    update();
  });
  update();
  return control(h("div", null, input, utc), input, get, (value) => {
    exact = typeof value === "string" && value ? value : undefined;
    input.value = exact ? toLocalInput(exact) : "";
    update();
  });
}

function moneyControl() {
  const list = h(
    "datalist",
    { id: uniqueId("currencies") },
    CURRENCIES.map((code) => h("option", { value: code })),
  );
  const amount = h("input", {
    type: "text",
    inputmode: "decimal",
    placeholder: "12.50",
    autocomplete: "off",
    class: "number",
  });
  const currency = h("input", {
    type: "text",
    maxlength: 3,
    placeholder: "EUR",
    autocomplete: "off",
    spellcheck: "false",
    list: list.id,
    "aria-label": "currency",
    class: "form-currency",
  });
  const error = h("div.field-error", { hidden: true });
  const get = () => {
    if (!amount.value.trim() && !currency.value.trim()) {
      return undefined;
    }
    // An amount that is no number is sent as it is, so that the check says so.
    return (
      parseMoney(amount.value, currency.value) ?? {
        currencyCode: currency.value.trim().toUpperCase(),
        units: amount.value.trim(),
      }
    );
  };
  const set = (value) => {
    const isMoney = typeof value === "object" && value !== null;
    amount.value = isMoney && /^-?\d+$/.test(String(value.units ?? 0)) ? decimal(value) : String(value?.units ?? "");
    currency.value = isMoney ? (value.currencyCode ?? value.currency_code ?? "") : "";
  };
  return {
    element: h("div", null, h("div.money-input", null, amount, currency, list), error),
    input: amount,
    get,
    set,
    showErrors: (violations) => {
      const inner = violations.filter(({ field }) => field);
      replace(
        error,
        inner.map(({ field, description }) => h("div", null, `${field} ${description}`)),
      );
      error.hidden = inner.length === 0;
    },
  };
}

function maskControl(schema, siblings) {
  const resource = siblings.find(({ ref, label, output }) => schema.message(ref) && !label && !output);
  const paths = resource ? settablePaths(schema, resource.ref) : [];
  if (paths.length === 0 || paths.length > MOST_PATHS) {
    return textControl({ name: "", rules: {} }, "string", "fullName,profile.bio");
  }
  const boxes = new Map(["*", ...paths].map((path) => [path, h("input", { type: "checkbox", value: path })]));
  // Paths that are given, but that no box has.
  let others = [];
  return {
    element: h(
      "div.form-choices",
      null,
      [...boxes].map(([path, box]) => h("label.check", null, box, h("span.mono", null, path))),
    ),
    get: () => {
      const chosen = [...boxes].filter(([, box]) => box.checked).map(([path]) => path);
      return [...chosen, ...others].join(",") || undefined;
    },
    set: (value) => {
      const given = typeof value === "string" ? value.split(",").filter(Boolean) : [];
      others = given.filter((path) => !boxes.has(path));
      for (const [path, box] of boxes) {
        box.checked = given.includes(path);
      }
    },
    showErrors: () => {},
  };
}

function settablePaths(schema, name, prefix = "", depth = 0) {
  const fields = settableFields(schema.message(name), "update");
  return fields.flatMap((field) => {
    if (field.identifier || field.name === "etag") {
      return [];
    }
    const path = prefix + field.json;
    const isMessage = field.type === "message" && !field.label && schema.message(field.ref) && depth === 0;
    return isMessage && shortName(field.ref) !== "Money"
      ? [path, ...settablePaths(schema, field.ref, `${path}.`, 1)]
      : [path];
  });
}

/** The control of a message whose JSON has no fields that are known: google.protobuf.Struct, Any, … */
function jsonControl() {
  const input = h("textarea", { rows: 3, class: "mono", placeholder: "JSON", spellcheck: "false" });
  return control(
    input,
    input,
    () => {
      if (!input.value.trim()) {
        return undefined;
      }
      try {
        return JSON.parse(input.value);
      } catch {
        return input.value;
      }
    },
    (value) => {
      input.value = value === undefined ? "" : JSON.stringify(value, null, 2);
    },
  );
}
