/** The control of a message: its fields, and a choice for each oneof. */

import { h, icon, inline, replace, uniqueId } from "../../lib/dom.js";
import { concerns } from "../../lib/failures.js";
import { settableFields } from "../../lib/schema.js";
import { badge, button, select } from "../../lib/ui.js";
import { fieldControl } from "./fields.js";
import { changed } from "./scalars.js";

// Messages whose fields are few and plain are shown from the start.
const INLINE = new Set(["google.type.Interval", "google.type.Date"]);

/**
 * Return the control of a message.
 *
 * @param {import("../../lib/schema.js").Schema} schema
 * @param {string} name - of the message.
 * @param {object} options
 * @param {boolean} [options.isRequired] - whether it is always sent. If not, the user adds it.
 * @param {"create" | "update"} [options.use] - what the request does with it, if it is a resource.
 */
export function messageControl(schema, name, { isRequired = false, use } = {}) {
  if (isRequired) {
    return fieldsControl(schema, name, { use });
  }
  return INLINE.has(name) ? inlineControl(schema, name) : optionalControl(schema, name);
}

/** Return the control of a message that is always sent; the options are those of `messageControl`. */
export function fieldsControl(schema, name, { use } = {}) {
  const message = schema.message(name);
  const fields = settableFields(message, use);
  const parts = [];
  const seen = new Set();
  for (const field of fields) {
    if (!field.oneof) {
      parts.push({ names: [field.name], ...plainPart(schema, field, fields) });
    } else if (!seen.has(field.oneof)) {
      seen.add(field.oneof);
      parts.push(oneofPart(schema, field.oneof, message, fields));
    }
  }
  const leftover = h("div.field-error", { hidden: true });
  const element = h(
    "div.message-fields",
    null,
    parts.length ? parts.map((part) => part.element) : h("p.quiet", null, "It has no fields."),
    leftover,
  );
  return {
    element,
    get: () => Object.assign({}, ...parts.map((part) => part.get())),
    set: (value) => {
      const given = typeof value === "object" && value !== null ? value : {};
      for (const part of parts) {
        part.set(given);
      }
    },
    showErrors: (violations) => {
      const placed = new Set();
      for (const part of parts) {
        const own = violations.filter(({ field }) => part.names.includes(firstName(field)));
        for (const violation of own) {
          placed.add(violation);
        }
        part.showErrors(own);
      }
      const rest = violations.filter((violation) => !placed.has(violation));
      replace(
        leftover,
        rest.map(({ field, description }) => h("div", null, field && h("code", null, field), ` ${description}`)),
      );
      leftover.hidden = rest.length === 0;
    },
  };
}

/** Return the first name of a path: `order` of `order.items[0]`. */
function firstName(path) {
  return path.split(/[.[]/, 1)[0];
}

/** Return violations with paths that are relative to what a prefix names. */
export function relative(violations, prefix) {
  return violations
    .filter((violation) => concerns(violation, prefix))
    .map(({ field, description }) => ({ field: field.slice(prefix.length).replace(/^\./, ""), description }));
}

function plainPart(schema, field, siblings) {
  const control = fieldControl(schema, field, siblings);
  return {
    element: control.element,
    get: () => {
      const value = control.get();
      return value === undefined ? {} : { [field.json]: value };
    },
    set: (given) => control.set(given[field.json] ?? given[field.name]),
    showErrors: (violations) => control.showErrors(relative(violations, field.name)),
  };
}

function oneofPart(schema, name, message, fields) {
  const { doc, required } = message.oneofs[name];
  const members = fields.filter((field) => field.oneof === name);
  const controls = new Map();
  const body = h("div", null);
  const error = h("div.field-error", { hidden: true });
  const options = members.map((field) => [field.json, field.name]);
  const choice = select(required ? options : [["", "none of them"], ...options], { id: uniqueId("oneof") });
  const control = () => {
    const member = members.find((field) => field.json === choice.value);
    if (member && !controls.has(member.json)) {
      controls.set(member.json, fieldControl(schema, member));
      if (member.type === "bool") {
        controls.get(member.json).set(true);
      }
    }
    return controls.get(choice.value);
  };
  const show = () => replace(body, control()?.element);
  choice.addEventListener("input", show);
  show();
  const element = h(
    "div.oneof",
    null,
    h(
      "label",
      { for: choice.id },
      h("span.field-name", null, name),
      h("span.field-type", null, "one of"),
      required && badge("required", "info"),
    ),
    doc && h("div.hint", null, inline(doc)),
    choice,
    error,
    body,
  );
  return {
    names: [name, ...members.map((field) => field.name)],
    element,
    get: () => {
      const member = members.find((field) => field.json === choice.value);
      return member ? { [member.json]: control().get() ?? emptyValue(schema, member) } : {};
    },
    set: (given) => {
      const member = members.find((field) => given[field.json] !== undefined || given[field.name] !== undefined);
      choice.value = member?.json ?? (required ? members[0].json : "");
      show();
      for (const [json, shown] of controls) {
        json === choice.value && member ? shown.set(given[json] ?? given[member.name]) : shown.set(undefined);
      }
      if (!member && members.find((field) => field.json === choice.value)?.type === "bool") {
        control().set(true);
      }
    },
    showErrors: (violations) => {
      const own = violations.filter(({ field }) => field === name);
      replace(
        error,
        own.map(({ description }) => h("div", null, description)),
      );
      error.hidden = own.length === 0;
      const member = members.find((field) => field.json === choice.value);
      member && control().showErrors(relative(violations, member.name));
    },
  };
}

function emptyValue(schema, field) {
  if (field.type === "message") {
    return schema.message(field.ref) && field.ref !== "google.type.Money" ? {} : undefined;
  }
  if (field.type === "enum") {
    return schema.enumValues(field.ref)[0];
  }
  return { string: "", bytes: "", bool: false }[field.type] ?? 0;
}

function inlineControl(schema, name) {
  const control = fieldsControl(schema, name);
  return {
    ...control,
    get: () => {
      const value = control.get();
      return Object.keys(value).length ? value : undefined;
    },
  };
}

function optionalControl(schema, name) {
  let control = null;
  const body = h("div", null);
  const add = button({
    label: "Add",
    icon: "plus",
    kind: "small",
    onclick: () => {
      open();
      changed(body);
      body.querySelector("input, select, textarea")?.focus();
    },
  });
  const open = () => {
    // Its fields are made only now: a message may refer to itself.
    control = fieldsControl(schema, name);
    replace(
      body,
      h(
        "div.nested",
        null,
        control.element,
        h("button.button.quiet.small", { type: "button", onclick: remove }, icon("trash"), "Remove"),
      ),
    );
  };
  const close = () => {
    control = null;
    replace(body, add);
  };
  const remove = () => {
    close();
    changed(body);
    add.focus();
  };
  close();
  return {
    element: body,
    get: () => control?.get(),
    set: (value) => {
      if (value === undefined || value === null) {
        close();
      } else {
        control ?? open();
        control.set(value);
      }
    },
    showErrors: (violations) => control?.showErrors(violations),
  };
}
