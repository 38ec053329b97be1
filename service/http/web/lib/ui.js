/** What views are made of. Each function returns an element; see style/components.css, data.css and feedback.css. */

import { append, h, icon, inline, uniqueId } from "./dom.js";
import { announce } from "./feedback.js";

/**
 * A button.
 *
 * @param {object} options
 * @param {string} options.label - its text; with `hideLabel`, only for screen readers and as a tooltip.
 * @param {string} [options.icon] - see `icon` in dom.js.
 * @param {"primary" | "danger" | "quiet" | ""} [options.kind]
 */
export function button({ label, icon: name, kind = "", hideLabel = false, type = "button", ...attributes }) {
  return h(
    "button.button",
    { type, class: `${kind} ${hideLabel ? "icon-only" : ""}`, title: hideLabel ? label : null, ...attributes },
    name && icon(name),
    h("span", { class: hideLabel ? "visually-hidden" : "" }, label),
  );
}

/** A short label; tones: `neutral`, `info`, `good`, `warn`, `bad`. */
export function badge(text, tone = "neutral") {
  return h("span.badge", { class: tone }, text);
}

/** The heading of a view, with an optional sentence below, a link back, and actions beside it. */
export function pageHeader({ title, lead, actions = [], back }) {
  return h(
    "header.page-header",
    null,
    back && h("a.back", { href: back.href }, icon("back"), back.label),
    h("div.page-title", null, h("h1", null, title), h("div.actions", null, actions)),
    lead && h("div.lead", null, lead),
  );
}

/** A section with a frame; `title` is its `h2`. */
export function card({ title, actions = [], level = 2, ...attributes }, ...children) {
  const id = uniqueId("card");
  return h(
    "section.card",
    { "aria-labelledby": title ? id : null, ...attributes },
    title && h("header.card-header", null, h(`h${level}`, { id }, title), h("div.actions", null, actions)),
    h("div.card-body", null, children),
  );
}

/**
 * A labelled input with an optional hint and error, which screen readers read with it.
 *
 * @returns {HTMLElement & {setError: (text: string) => void}}
 */
export function field({ label, input, hint, optional = false }) {
  const id = input.id || uniqueId("field");
  input.id = id;
  const hintElement = hint && h("div.hint", { id: `${id}-hint` }, hint);
  const errorElement = h("div.field-error", { id: `${id}-error`, hidden: true });
  const element = h(
    "div.field",
    null,
    h("label", { for: id }, label, optional && h("span.quiet", null, " (optional)")),
    hintElement,
    input,
    errorElement,
  );
  element.setError = (text) => {
    errorElement.textContent = text;
    errorElement.hidden = !text;
    const described = [hintElement && `${id}-hint`, text && `${id}-error`].filter(Boolean).join(" ");
    described ? input.setAttribute("aria-describedby", described) : input.removeAttribute("aria-describedby");
    text ? input.setAttribute("aria-invalid", "true") : input.removeAttribute("aria-invalid");
  };
  element.setError("");
  return element;
}

/** A select; options are values, or pairs of a value and its label. */
export function select(options, { value = "", ...attributes } = {}) {
  const made = options.map((option) => {
    const [key, label] = Array.isArray(option) ? option : [option, option];
    return h("option", { value: key, selected: key === value }, label);
  });
  return h("select", attributes, made);
}

/**
 * A table, which becomes a list of cards on a phone.
 *
 * @param {object} options
 * @param {string} options.caption - what it shows, for screen readers.
 * @param {{label: string, cell: (row: any) => any, align?: "end", class?: string}[]} options.columns - the first
 *   one's cells are the headers of their rows.
 * @param {any[]} options.rows
 * @param {(row: any) => string} [options.href] - the address of a row: its first cell becomes a link, and a click on
 *   the row follows it.
 */
export function table({ caption, columns, rows, href }) {
  const cell = (column, row, index) => {
    const content = column.cell(row);
    const attributes = { class: `${column.align ?? ""} ${column.class ?? ""}`, "data-label": column.label };
    return index === 0
      ? h(
          "th",
          { scope: "row", role: "rowheader", ...attributes },
          href ? h("a", { href: href(row) }, content) : content,
        )
      : h("td", { role: "cell", ...attributes }, content);
  };
  const line = (row) =>
    h(
      "tr",
      {
        role: "row",
        class: href && "linked",
        onclick:
          href &&
          ((event) => {
            // A click on a link or a button, or one that selects text, is no click on the row.
            if (!event.target.closest("a, button, input") && !String(getSelection())) {
              location.hash = href(row);
            }
          }),
      },
      columns.map((column, index) => cell(column, row, index)),
    );
  return h(
    "div.table-frame",
    { tabindex: 0, role: "region", "aria-label": caption },
    h(
      "table",
      // The roles are those that it has by itself, and would lose as a list of cards.
      { role: "table" },
      h("caption.visually-hidden", null, caption),
      h(
        "thead",
        { role: "rowgroup" },
        h(
          "tr",
          { role: "row" },
          columns.map(({ label, align }) => h("th", { scope: "col", role: "columnheader", class: align }, label)),
        ),
      ),
      h("tbody", { role: "rowgroup" }, rows.map(line)),
    ),
  );
}

/** What is shown where there is nothing. */
export function emptyState({ icon: name = "info", title, text, action }) {
  return h("div.empty", null, icon(name), h("p.empty-title", null, title), text && h("p", null, text), action);
}

/** What is shown while something is loaded. */
export function loading(text = "Loading …") {
  return h("div.loading", { role: "status" }, h("span.spinner", { "aria-hidden": "true" }), text);
}

/** A notice in the page; kinds: `info`, `good`, `warn`, `bad`. */
export function notice(kind, ...children) {
  const name = { good: "check", warn: "warning", bad: "warning" }[kind] ?? "info";
  return h("div.notice", { class: kind }, icon(name), h("div", null, children));
}

/** Names and values; pairs whose value is null, undefined or false are left out. */
export function definitions(pairs) {
  const shown = pairs.filter(([, value]) => value !== null && value !== undefined && value !== false);
  return h(
    "dl.definitions",
    null,
    shown.map(([name, value]) => h("div", null, h("dt", null, name), h("dd", null, value))),
  );
}

/**
 * A failed call in words: the message, what the reason means, whether something was written, the fields that are wrong,
 * and the ids to search the log for.
 *
 * @param {Error} error - a `CallError`, or any other error.
 * @param {object} options
 * @param {() => void} [options.retry] - adds a button.
 */
export function errorPanel(error, { retry, level = 2 } = {}) {
  const actions = retry
    ? h("div.actions", null, button({ label: "Try again", icon: "refresh", onclick: retry }))
    : null;
  if (error.name !== "CallError") {
    return h(
      "div.error-panel",
      { role: "group", "aria-label": "Error" },
      h("div.error-head", null, icon("warning"), h(`h${level}`, null, "The console has failed")),
      h("p", null, error.message),
      actions,
    );
  }
  const ids = [
    ["Request", error.requestId && h("code", null, error.requestId)],
    ["Error", error.errorId && h("code", null, error.errorId)],
  ].filter(([, value]) => value);
  return h(
    "div.error-panel",
    { role: "group", "aria-label": "Error" },
    h(
      "div.error-head",
      null,
      icon("warning"),
      h(`h${level}`, null, error.message),
      h(
        "span.error-codes",
        null,
        badge(error.code, "bad"),
        error.reason && error.reason !== error.code && badge(error.reason, "bad"),
      ),
    ),
    error.explanation && h("p", null, inline(error.explanation)),
    error.violations.length > 0 &&
      h(
        "ul.violations",
        null,
        error.violations.map(({ field: path, description }) =>
          h("li", null, path && h("code", null, path), path && " ", description),
        ),
      ),
    error.preconditions.length > 0 &&
      h(
        "ul.violations",
        null,
        error.preconditions.map(({ subject, description }) =>
          h("li", null, subject && h("code", null, subject), description !== error.message && ` ${description}`),
        ),
      ),
    h(
      "p.outcome",
      null,
      error.outcomeText,
      error.retryAfterMs !== null && ` It can be repeated in ${seconds(error.retryAfterMs)}.`,
    ),
    ids.length > 0 && definitions(ids),
    actions,
  );
}

function seconds(ms) {
  return ms < 1000 ? `${ms} ms` : `${Math.ceil(ms / 1000)} s`;
}

/** A button that copies a text, or what a function returns. */
export function copyButton(text, { label = "Copy", hideLabel = false, kind = "quiet" } = {}) {
  const made = button({
    label,
    icon: "copy",
    kind,
    hideLabel,
    onclick: async () => {
      try {
        await navigator.clipboard.writeText(typeof text === "function" ? text() : text);
        announce("Copied");
        made.classList.add("done");
        setTimeout(() => made.classList.remove("done"), 1500);
      } catch {
        announce("The browser did not allow copying", { kind: "bad", visible: true });
      }
    },
  });
  return made;
}

/**
 * Tabs, moved through with the arrow keys.
 *
 * @param {object} options
 * @param {string} options.label - of the list of tabs, for screen readers.
 * @param {{id: string, label: any, content: () => Node}[]} options.tabs - contents are made when they are first shown.
 * @param {string} [options.selected] - the id of the first tab shown.
 * @param {(id: string) => void} [options.onSelect]
 * @returns {HTMLElement & {select: (id: string) => void}}
 */
export function tabs({ label, tabs: given, selected = given[0].id, onSelect }) {
  const prefix = uniqueId("tab");
  const panels = new Map();
  const buttons = given.map(({ id, label: text }) =>
    h(
      "button.tab",
      {
        type: "button",
        role: "tab",
        id: `${prefix}-${id}`,
        "aria-controls": `${prefix}-${id}-panel`,
        onclick: () => choose(id),
        onkeydown: move,
      },
      text,
    ),
  );
  for (const { id } of given) {
    panels.set(
      id,
      h("div.tab-panel", { role: "tabpanel", id: `${prefix}-${id}-panel`, "aria-labelledby": `${prefix}-${id}` }),
    );
  }

  function show(id) {
    for (const [index, tab] of given.entries()) {
      const isShown = tab.id === id;
      const panel = panels.get(tab.id);
      buttons[index].setAttribute("aria-selected", String(isShown));
      buttons[index].tabIndex = isShown ? 0 : -1;
      panel.hidden = !isShown;
      if (isShown && !panel.hasChildNodes()) {
        append(panel, tab.content());
      }
    }
  }

  function choose(id) {
    show(id);
    onSelect?.(id);
  }

  function move(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step) {
      const next = (buttons.indexOf(event.currentTarget) + step + buttons.length) % buttons.length;
      choose(given[next].id);
      buttons[next].focus();
      event.preventDefault();
    }
  }

  show(selected);
  const element = h("div.tabs", null, h("div.tab-list", { role: "tablist", "aria-label": label }, buttons), [
    ...panels.values(),
  ]);
  element.select = choose;
  return element;
}
