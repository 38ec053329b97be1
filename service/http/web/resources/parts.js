/** Parts that several views of Work have. */

import { h, replace } from "../lib/dom.js";
import { announce } from "../lib/feedback.js";
import { badge, button, errorPanel, loading } from "../lib/ui.js";

const STATUS_TONES = {
  PENDING: "warn",
  CONFIRMED: "info",
  PROCESSING: "info",
  SHIPPED: "info",
  DELIVERED: "good",
  CANCELLED: "neutral",
  ACTIVE: "good",
  INACTIVE: "warn",
  DELETED: "bad",
  DRAFT: "warn",
  PUBLISHED: "good",
};

/** Return a status or state as a badge. */
export function statusBadge(name) {
  return badge(name, STATUS_TONES[name] ?? "neutral");
}

/** Return tags as labels. */
export function tagList(tags = []) {
  return tags.length
    ? h(
        "span.tags",
        null,
        tags.map((tag) => h("span.tag", null, tag)),
      )
    : h("span.quiet", null, "–");
}

const ATTEMPTS = 3;

/** Read, and read again when the service says that it helps to wait, for example because it has too much to do. */
async function patiently(load, signal) {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await load();
    } catch (error) {
      const ms = error.retryAfterMs ?? null;
      if (ms === null || attempt === ATTEMPTS || signal.aborted) {
        throw error;
      }
      await new Promise((resolve) => {
        setTimeout(resolve, ms);
      });
    }
  }
}

/**
 * Return an element that shows what is loaded, and meanwhile that it is loading; after a failure, why, with a button to
 * try again.
 *
 * @param {() => Promise<Node>} load
 * @param {AbortSignal} signal
 * @returns {HTMLElement & {reload: (options?: {quietly?: boolean, focus?: boolean}) => Promise<void>}} `quietly` keeps what
 *   is shown meanwhile; `focus` moves the focus to what was loaded
 */
export function loaded(load, signal) {
  const element = h("div.loaded");
  let last = 0;
  element.reload = async ({ quietly = false, focus = false } = {}) => {
    last += 1;
    const own = last;
    if (!quietly) {
      replace(element, loading());
    }
    element.setAttribute("aria-busy", "true");
    let content;
    try {
      content = await patiently(load, signal);
    } catch (error) {
      if (signal.aborted) {
        return;
      }
      content = errorPanel(error, { retry: () => element.reload(), level: 3 });
    }
    // A later call may have been answered sooner.
    if (own === last && !signal.aborted) {
      element.removeAttribute("aria-busy");
      replace(element, content);
      if (own > 1 && !quietly) {
        announce(element.querySelector(".pager-info > span, .empty-title, h3")?.textContent ?? "Loaded");
      }
      // The button that was pressed is no longer there.
      if (focus) {
        element.querySelector(".table-frame, a, button")?.focus();
      }
    }
  };
  // Not now: the caller may not have defined yet what `load` uses.
  queueMicrotask(() => element.reload());
  return element;
}

/**
 * Return the buttons of the actions that are possible, and why the others are not.
 *
 * @param {{name: string, label: string, refusal: string}[]} actions
 * @param {(name: string) => void} onAction
 * @param {{primary?: string[], more?: string[]}} options names of actions: the first possible one of `primary` stands out,
 *   those of `more` are behind a button
 */
export function actionButtons(actions, onAction, { primary = [], more = [] } = {}) {
  const possible = actions.filter(({ refusal }) => !refusal);
  const refused = actions.filter(({ refusal }) => refusal);
  const standsOut = primary.find((name) => possible.some((action) => action.name === name));
  const one = ({ name, label }) =>
    button({ label, kind: name === standsOut ? "primary" : "", onclick: () => onAction(name), "data-action": name });
  const behind = possible.filter(({ name }) => more.includes(name));
  return h(
    "div.action-bar",
    null,
    h("div.actions", null, possible.filter(({ name }) => !more.includes(name)).map(one)),
    behind.length > 0 && disclosure("More", h("div.actions", null, behind.map(one))),
    refused.length > 0 &&
      disclosure(
        "Not possible now",
        h(
          "ul.refusals",
          null,
          refused.map(({ label, refusal }) => h("li", null, h("strong", null, label), ": ", refusal)),
        ),
      ),
  );
}

/** Return a part that is closed until the user opens it. */
export function disclosure(summary, ...children) {
  return h("details.disclosure", null, h("summary", null, summary), h("div.disclosed", null, children));
}
