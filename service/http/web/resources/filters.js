/** The filters of a list, which are in the address, so that a filtered list can be linked to. */

import { h, uniqueId } from "../lib/dom.js";
import { call } from "../lib/rpc.js";
import { fromLocalInput, toLocalInput } from "../lib/time.js";
import { field, select } from "../lib/ui.js";
import { problem } from "./controls.js";
import { methodOfUser } from "./methods.js";
import { userKey } from "./user_picker.js";

/** Return a group of boxes of which any number can be checked; none means all. */
export function choices({ label, name, values, chosen }) {
  return h(
    "fieldset.choices",
    null,
    h("legend", null, label),
    values.map((value) =>
      h("label.chip", null, h("input", { type: "checkbox", name, value, checked: chosen.includes(value) }), value),
    ),
  );
}

/** Return a select of one filter. */
export function choice({ label, name, options, value }) {
  return field({ label, input: select(options, { value, name }) });
}

/** Return two inputs for an interval of times; the address has them in UTC. */
export function interval({ label, query }) {
  const input = (name, text) =>
    h(
      "label.inline",
      null,
      h("span", null, text),
      h("input", { type: "datetime-local", name, value: toLocalInput(query.get(name) ?? "") }),
    );
  return h("fieldset.interval", null, h("legend", null, label), input("from", "From"), input("to", "Until"));
}

/** Return an input of text. */
export function text({ label, name, value, hint, ...attributes }) {
  return field({
    label,
    hint,
    input: h("input", { type: "text", name, value, autocomplete: "off", spellcheck: "false", ...attributes }),
  });
}

/**
 * Return a form of filters. Each change is told; Enter too, and it reloads no page.
 *
 * @param {string} label for screen readers
 * @param {(values: Record<string, string | string[]>) => void} onChange
 * @param {...any} children
 */
export function filterForm(label, onChange, ...children) {
  const id = uniqueId("filters");
  const tell = () => onChange(valuesOf(form));
  const form = h(
    "form.filters",
    {
      id,
      role: "search",
      "aria-label": label,
      novalidate: true,
      onchange: tell,
      onsubmit: (event) => {
        event.preventDefault();
        tell();
      },
    },
    children,
  );
  return form;
}

function valuesOf(form) {
  const values = {};
  for (const input of form.querySelectorAll("[name]")) {
    if (input.type === "checkbox") {
      values[input.name] ??= [];
      if (input.checked) {
        values[input.name].push(input.value);
      }
    } else if (input.type === "datetime-local") {
      values[input.name] = fromLocalInput(input.value);
    } else {
      values[input.name] = input.value.trim();
    }
  }
  return values;
}

/** Return the interval of a query as `google.type.Interval` in JSON; undefined if it has no bound. */
export function intervalOf(query) {
  const [startTime, endTime] = [query.get("from"), query.get("to")];
  return startTime || endTime ? { ...(startTime && { startTime }), ...(endTime && { endTime }) } : undefined;
}

/** Return the id of the user that a person named by username, e-mail address or id; throws FieldProblem and CallError. */
export async function userIdOf(name, signal) {
  const key = userKey(name);
  if (!key) {
    throw problem("user", `${name} is no username, e-mail address or id`);
  }
  // A caller that may not read users can still name one by its id.
  return key.id ?? (await call(methodOfUser, key, { signal })).user.id;
}

/** Return the entries of a query, with a list for a key that occurs more than once. */
export function grouped(query) {
  return [...new Set(query.keys())].map((key) => [key, query.getAll(key)]);
}
