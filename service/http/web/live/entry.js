/** An entry of the list of Live: an event, a gap, or where the list begins. */

import { h, icon } from "../lib/dom.js";
import { timeElement } from "../lib/time.js";
import { actorInWords, changesInWords, orderEventTitle, userEventTitle } from "../resources/event_words.js";
import { plainName } from "../resources/order_actions.js";
import { statusBadge } from "../resources/parts.js";
import { orderLink, userLink } from "../resources/references.js";

const MARKS = {
  resumed: "Continued where this tab stopped. What was shown before is no longer listed.",
  earliest: "From the earliest stored event on.",
  now: "From now on.",
};

/** Return the element of an entry. */
export function entryElement(entry) {
  if (entry.mark) {
    const text = entry.mark === "gap" ? gapInWords(entry) : MARKS[entry.mark];
    return h(
      "li.event-mark",
      { class: entry.mark === "gap" ? "gap" : "" },
      icon(entry.mark === "gap" ? "warning" : "info"),
      text,
    );
  }
  return entry.kind === "order" ? orderEntry(entry.event) : userEntry(entry.event);
}

function gapInWords({ kind, reason }) {
  return reason === "expired"
    ? `Gap: events of ${kind}s after the last one shown are no longer stored. It goes on with the earliest stored event.`
    : `Gap: the server does not know where this tab stopped with events of ${kind}s, for example because it has another database now. It goes on from now.`;
}

function orderEntry(event) {
  return line({
    event,
    title: orderEventTitle(event),
    subject: orderLink(event.orderId),
    state: event.status && statusBadge(plainName(event.status, "ORDER_STATUS_")),
    of: event.userId && ["of ", userLink(event.userId)],
  });
}

function userEntry(event) {
  return line({ event, title: userEventTitle(event), subject: userLink(event.userId) });
}

function line({ event, title, subject, state, of }) {
  const changes = changesInWords(event)
    // The title and the badge say these already.
    .filter(({ field }) => field !== "Status" && field !== "State")
    .map(({ field, text }) => `${field}: ${text}`)
    .join(" · ");
  return h(
    "li.event",
    { dataset: { event: event.id } },
    timeElement(event.createTime, "time"),
    h("div.event-what", null, h("strong", null, title), " ", subject, " ", of, " ", state),
    h("div.event-more.quiet", null, [changes, `by ${actorInWords(event)}`].filter(Boolean).join(" · ")),
  );
}
