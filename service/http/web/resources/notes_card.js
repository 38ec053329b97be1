/** Notes about an order, or by an author. */

import { h } from "../lib/dom.js";
import { call } from "../lib/rpc.js";
import { timeElement } from "../lib/time.js";
import { button, card, emptyState } from "../lib/ui.js";
import { openAction } from "./action_dialog.js";
import { noteAction } from "./actions_of_orders.js";
import { orders } from "./methods.js";
import { noteActions, plainName } from "./order_actions.js";
import { pager } from "./pager.js";
import { loaded, statusBadge } from "./parts.js";
import { fillNames, orderLink, userLink } from "./references.js";

const PAGE_SIZE = 10;

/**
 * Return the card of notes.
 *
 * @param {object} options
 * @param {string} options.title
 * @param {object} options.filter of ListOrderNotes
 * @param {AbortSignal} options.signal
 * @param {() => void} [options.onChange] is called when a note has changed
 * @returns {HTMLElement & {reload: Function}}
 */
export function notesCard({ title, filter, signal, onChange }) {
  let token = "";
  const drafts = h("input", {
    type: "checkbox",
    checked: true,
    onchange: () => {
      token = "";
      list.reload();
    },
  });
  const list = loaded(load, signal);

  async function load() {
    const request = { ...filter, includeDrafts: drafts.checked, pageSize: PAGE_SIZE, pageToken: token };
    const { notes = [], nextPageToken = "" } = await call(orders("ListOrderNotes"), request, { signal });
    if (!notes.length && !token) {
      return emptyState({ title: "No notes", text: drafts.checked ? "" : "Drafts are not shown." });
    }
    const element = h(
      "div",
      null,
      h(
        "ul.notes",
        null,
        notes.map((note) => h("li", null, noteElement(note, { signal, filter, onChange: changed }))),
      ),
      (token || nextPageToken) &&
        pager({
          count: notes.length,
          noun: "note",
          token,
          next: nextPageToken,
          onPage: (next) => {
            token = next;
            list.reload();
          },
        }),
    );
    fillNames(element, signal);
    return element;
  }

  function changed() {
    list.reload({ quietly: true });
    onChange?.();
  }

  const element = card({ title, actions: [h("label.check", null, drafts, "Drafts")] }, list);
  element.reload = list.reload;
  return element;
}

/** Return a note with what can be done with it; what `filter` names already is not repeated. */
export function noteElement(note, { signal, filter = {}, onChange, body = note.body }) {
  const act = async (name) => {
    let current = note;
    const result = await openAction({
      action: noteAction(name, current),
      reload: async () => {
        current = await readAgain(note, signal);
        const isPossible = current && !noteActions(current).find((action) => action.name === name).refusal;
        return isPossible ? noteAction(name, current) : null;
      },
      signal,
    });
    if (result) {
      onChange?.();
    }
  };
  return h(
    "article.note",
    null,
    h(
      "header",
      null,
      userLink(note.authorId),
      filter.orderId ? null : [" about ", orderLink(note.orderId)],
      statusBadge(plainName(note.state, "ORDER_NOTE_STATE_")),
      timeElement(note.createTime, "relative"),
    ),
    h("p.note-body", null, body),
    h(
      "div.actions",
      null,
      noteActions(note)
        .filter(({ refusal }) => !refusal)
        .map(({ name, label }) => button({ label, class: "small", onclick: () => act(name) })),
    ),
  );
}

/** Return the current version of a note; null if it is gone. There is no method for one note, so its order's are read. */
async function readAgain(note, signal) {
  let pageToken = "";
  do {
    const request = { orderId: note.orderId, authorId: note.authorId, includeDrafts: true, pageSize: 1000, pageToken };
    const response = await call(orders("ListOrderNotes"), request, { signal });
    const found = (response.notes ?? []).find(({ id }) => id === note.id);
    if (found) {
      return found;
    }
    pageToken = response.nextPageToken ?? "";
  } while (pageToken);
  return null;
}
