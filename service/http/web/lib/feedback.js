/** Messages that appear beside what the user does, and are read by screen readers: toasts and dialogs. */

import { h, icon, uniqueId } from "./dom.js";

const VISIBLE_MS = 6000;

const live = h("div.visually-hidden", { role: "status", "aria-live": "polite" });
const toasts = h("div.toasts", { role: "region", "aria-label": "Messages" });

/** Return the elements that the shell puts into the page once. */
export function feedbackRegions() {
  return [live, toasts];
}

/** Tell screen readers something; with `visible`, also as a toast. */
export function announce(text, { kind = "info", visible = false } = {}) {
  live.textContent = "";
  // Another turn of the event loop: a text that does not change is not read.
  setTimeout(() => {
    live.textContent = text;
  }, 30);
  if (visible) {
    show(text, kind);
  }
}

/** Show a message for some seconds; kinds: `info`, `good`, `bad`. */
export function toast(text, { kind = "info" } = {}) {
  announce(text, { kind, visible: true });
}

function show(text, kind) {
  const element = h(
    "div.toast",
    { class: kind },
    icon({ good: "check", bad: "warning" }[kind] ?? "info"),
    h("span", null, text),
    h(
      "button.button.quiet.icon-only",
      { type: "button", title: "Dismiss", onclick: () => element.remove() },
      icon("close"),
      h("span.visually-hidden", null, "Dismiss"),
    ),
  );
  toasts.append(element);
  setTimeout(() => element.remove(), VISIBLE_MS);
}

/**
 * Open a dialog. The browser keeps the focus inside, Escape closes it, and the focus returns to where it was.
 *
 * @param {object} options
 * @param {string} options.title
 * @param {any} options.body - what `h` takes as children.
 * @param {(close: (value?: any) => void) => any} [options.actions] - makes the buttons at its end.
 * @param {(event: SubmitEvent, close: (value?: any) => void) => void} [options.onSubmit] - the dialog is a form then.
 * @param {boolean} [options.wide]
 * @param {() => boolean} [options.mayClose] - whether the user may close it now, with Escape or the X.
 * @returns {{element: HTMLDialogElement, close: (value?: any) => void, closed: Promise<any>}} `closed` resolves with the
 *   value given to `close`, or with undefined.
 */
export function openDialog({ title, body, actions, onSubmit, wide = false, mayClose = () => true }) {
  const id = uniqueId("dialog");
  let result;
  const close = (value) => {
    result = value;
    element.close();
  };
  const content = h(
    onSubmit ? "form.dialog-content" : "div.dialog-content",
    onSubmit && {
      novalidate: true,
      onsubmit: (event) => {
        event.preventDefault();
        onSubmit(event, close);
      },
    },
    h(
      "header.dialog-header",
      null,
      h("h2", { id }, title),
      h(
        "button.button.quiet.icon-only",
        { type: "button", title: "Close", onclick: () => mayClose() && close() },
        icon("close"),
        h("span.visually-hidden", null, "Close"),
      ),
    ),
    h("div.dialog-body", null, body),
    actions && h("footer.dialog-footer", null, actions(close)),
  );
  const element = h("dialog", { "aria-labelledby": id, class: wide ? "wide" : "" }, content);
  element.addEventListener("cancel", (event) => mayClose() || event.preventDefault());
  const closed = new Promise((resolve) => {
    element.addEventListener("close", () => {
      element.remove();
      resolve(result);
    });
  });
  document.body.append(element);
  element.showModal();
  return { element, close, closed };
}

/** Ask before something is done; resolves with whether the user agreed. */
export async function confirmDialog({ title, body, confirm = "Continue", danger = false }) {
  const { closed } = openDialog({
    title,
    body,
    actions: (close) => [
      h("button.button", { type: "button", onclick: () => close(false) }, "Cancel"),
      h("button.button", { type: "button", class: danger ? "danger" : "primary", onclick: () => close(true) }, confirm),
    ],
  });
  return (await closed) === true;
}
