/** The request that the user writes: as a form and as JSON, which follow each other. */

import { check } from "../lib/check.js";
import { h } from "../lib/dom.js";
import { button, notice, tabs } from "../lib/ui.js";
import { draft, setDraft } from "./drafts.js";
import { fieldsControl } from "./form/message.js";

/**
 * Return the editor of a method's request.
 *
 * @param {import("../lib/schema.js").Schema} schema
 * @param {object} method
 * @param {object} options
 * @param {object} [options.given] - a request to begin with, instead of the draft.
 * @param {(request: object) => void} options.onChange - is told each request that is JSON, valid or not.
 * @param {() => void} options.onSubmit - the user wants to call.
 */
export function requestEditor(schema, method, { given, onChange, onSubmit }) {
  const form = fieldsControl(schema, method.input);
  const json = h("textarea.json-editor", {
    rows: 16,
    spellcheck: "false",
    autocomplete: "off",
    "aria-label": "Request as JSON",
  });
  const jsonError = h("div.field-error", { role: "alert", hidden: true });
  const summary = h("div", { role: "alert" });
  let request = {};
  let isJson = true;

  function accept(value) {
    request = value;
    setDraft(method.path, json.value);
    onChange(request);
  }

  function fromForm() {
    json.value = JSON.stringify(form.get(), null, 2);
    showJsonError("");
    accept(JSON.parse(json.value));
  }

  function fromJson() {
    const [value, problem] = parse(json.value);
    showJsonError(problem);
    if (!problem) {
      form.set(value);
      accept(value);
    }
  }

  function showJsonError(problem) {
    isJson = !problem;
    jsonError.textContent = problem;
    jsonError.hidden = !problem;
    problem ? json.setAttribute("aria-invalid", "true") : json.removeAttribute("aria-invalid");
  }

  function set(value) {
    json.value = JSON.stringify(value, null, 2);
    fromJson();
    showProblems([]);
  }

  function showProblems(violations) {
    form.showErrors(violations);
    const count = violations.length;
    summary.replaceChildren();
    if (count) {
      const title = count === 1 ? "One field must be corrected:" : `${count} fields must be corrected:`;
      const items = violations
        .slice(0, 10)
        .map(({ field, description }) => h("li", null, field && h("code", null, field), field && " ", description));
      summary.append(notice("bad", h("strong", null, title), h("ul", null, items)));
    }
  }

  const formElement = h(
    "form.request-form",
    { novalidate: true, "aria-label": "Request", oninput: fromForm, onsubmit: (event) => event.preventDefault() },
    form.element,
  );
  json.addEventListener("input", fromJson);
  const hasHidden = schema.message(method.input).fields.length > 0;
  const choice = tabs({
    label: "Form of the request",
    tabs: [
      { id: "form", label: "Form", content: () => formElement },
      {
        id: "json",
        label: "JSON",
        content: () => [
          json,
          jsonError,
          h("p.hint", null, "Protobuf's JSON: names in lowerCamelCase, numbers of 64 bits as strings, times in UTC."),
        ],
      },
    ],
  });
  const element = h(
    "div.request-editor",
    {
      onkeydown: (event) => {
        if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
          event.preventDefault();
          onSubmit();
        }
      },
    },
    hasHidden &&
      h(
        "div.request-tools",
        null,
        method.example && button({ label: "Example", kind: "quiet small", onclick: () => set(method.example) }),
        button({ label: "Clear", kind: "quiet small", onclick: () => set({}) }),
      ),
    choice,
    summary,
  );

  json.value = given ? JSON.stringify(given, null, 2) : (draft(method.path) ?? "{}");
  const [value, problem] = parse(json.value);
  showJsonError(problem);
  form.set(problem ? {} : value);
  if (!given && !problem && Object.keys(value).length === 0) {
    // What the form sets by itself, such as the first of several that one is needed of.
    json.value = JSON.stringify(form.get(), null, 2);
  }
  request = parse(json.value)[0] ?? {};

  return {
    element,
    /** The request, or null if its JSON cannot be parsed. */
    get: () => (isJson ? request : null),
    /** Check the request, show what is wrong, and return whether it can be sent. */
    validate() {
      if (!isJson) {
        choice.select("json");
        json.focus();
        return false;
      }
      const violations = check(schema, method.input, request);
      showProblems(violations);
      focusFirstError();
      return violations.length === 0;
    },
    /** Show the violations that the service found. */
    showProblems(violations) {
      form.showErrors(violations);
    },
  };

  function focusFirstError() {
    formElement.querySelector("[aria-invalid=true]")?.focus();
  }
}

/** Return the object of a JSON text and no problem, or null and what is wrong with it. */
function parse(text) {
  let value;
  try {
    value = JSON.parse(text.trim() || "{}");
  } catch (error) {
    return [null, `This is not JSON: ${error.message}`];
  }
  const isObject = typeof value === "object" && value !== null && !Array.isArray(value);
  return isObject ? [value, ""] : [null, "The request must be a JSON object."];
}
