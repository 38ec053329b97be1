/** A field of a message: its name, type, rules and comment, its control, and what is wrong with it. */

import { describeRules } from "../../lib/check.js";
import { h, inline, replace, uniqueId } from "../../lib/dom.js";
import { shortName } from "../../lib/schema.js";
import { badge } from "../../lib/ui.js";
import { listControl, mapControl } from "./lists.js";
import { messageControl } from "./message.js";
import { enumListControl, scalarControl } from "./scalars.js";

/** Return the control of a field, with all that is shown of it around. */
export function fieldControl(schema, field, siblings = []) {
  const control = inner(schema, field, siblings);
  const hint = field.doc ? h("div.hint", { id: uniqueId("hint") }, inline(field.doc)) : null;
  const error = h("div.field-error", { id: uniqueId("error"), hidden: true });
  const heading = [
    h("span.field-name", null, field.name),
    " ",
    h("span.field-type", null, typeName(field)),
    field.required && [" ", badge("required", "info")],
    describeRules(field).map((rule) => [" ", h("span.field-rule", null, rule)]),
  ];
  const { input } = control;
  const isBox = input?.type === "checkbox";
  let element;
  if (input) {
    input.id ||= uniqueId("input");
    const label = h("label", { for: input.id }, heading);
    element = h(
      "div.form-field",
      { class: isBox ? "is-box" : "" },
      isBox ? [control.element, label] : [label, hint, control.element],
      isBox && hint,
      error,
    );
  } else {
    element = h(
      "fieldset.form-field",
      { "aria-describedby": hint?.id ?? null },
      h("legend", null, heading),
      hint,
      control.element,
      error,
    );
  }
  const describe = () => {
    const ids = [hint?.id, !error.hidden && error.id].filter(Boolean).join(" ");
    const target = input ?? element;
    ids ? target.setAttribute("aria-describedby", ids) : target.removeAttribute("aria-describedby");
  };
  describe();
  return {
    element,
    get: control.get,
    set: control.set,
    showErrors: (violations) => {
      const own = violations.filter((violation) => violation.field === "");
      replace(
        error,
        own.map(({ description }) => h("div", null, description)),
      );
      error.hidden = own.length === 0;
      input && (violations.length ? input.setAttribute("aria-invalid", "true") : input.removeAttribute("aria-invalid"));
      describe();
      control.showErrors(violations.filter((violation) => violation.field !== ""));
    },
  };
}

function inner(schema, field, siblings) {
  if (field.label === "map") {
    return mapControl(schema, field);
  }
  if (field.label === "repeated") {
    return field.type === "enum" ? enumListControl(schema, field) : listControl(schema, field);
  }
  const scalar = scalarControl(schema, field, { siblings, presence: Boolean(field.presence) });
  const isRequired = field.required || Boolean(field.oneof);
  return scalar ?? messageControl(schema, field.ref, { isRequired, use: useOf(schema, field, siblings) });
}

/** Return what a request does with the resource in one of its fields; undefined for a field without a resource. */
function useOf(schema, field, siblings) {
  if (!schema.message(field.ref).fields.some(({ identifier }) => identifier)) {
    return undefined;
  }
  return siblings.some(({ ref }) => ref === "google.protobuf.FieldMask") ? "update" : "create";
}

function typeName(field) {
  const type = field.ref ? shortName(field.ref) : field.type;
  if (field.label === "map") {
    return `map<${field.key}, ${type}>`;
  }
  return field.label === "repeated" ? `repeated ${type}` : type;
}
