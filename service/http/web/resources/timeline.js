/** The timeline of an order: all of its events, oldest first. */

import { h } from "../lib/dom.js";
import { call } from "../lib/rpc.js";
import { timeElement } from "../lib/time.js";
import { button, card, emptyState, errorPanel } from "../lib/ui.js";
import { actorInWords, changesInWords, orderEventTitle } from "./event_words.js";
import { orders } from "./methods.js";
import { loaded } from "./parts.js";

const PAGE_SIZE = 100;

/** Return the card of the timeline; `reload` reads it again. */
export function timelineCard(order, signal) {
  const list = loaded(async () => {
    const { events = [], nextPageToken = "" } = await page("");
    if (!events.length) {
      return emptyState({ icon: "history", title: "No events", text: "They were deleted after their retention." });
    }
    const element = h("ol.timeline", null, events.map(entry));
    return [element, nextPageToken && moreButton(element, nextPageToken)];
  }, signal);

  const page = (pageToken) =>
    call(orders("ListOrderEvents"), { orderId: order.id, pageSize: PAGE_SIZE, pageToken }, { signal });

  function moreButton(element, token) {
    const more = button({
      label: "Show later events",
      onclick: async () => {
        try {
          const { events = [], nextPageToken = "" } = await page(token);
          element.append(...events.map(entry));
          more.replaceWith(nextPageToken ? moreButton(element, nextPageToken) : "");
        } catch (error) {
          more.after(errorPanel(error, { level: 3 }));
        }
      },
    });
    return more;
  }

  const element = card({ title: "Timeline" }, list);
  element.reload = list.reload;
  return element;
}

function entry(event) {
  return h(
    "li",
    null,
    h("div.event-head", null, h("strong", null, orderEventTitle(event)), timeElement(event.createTime, "exact")),
    h("div.quiet", null, "by ", actorInWords(event)),
    changeList(event),
  );
}

/** Return the changes of an event as a list. */
function changeList(event) {
  const changes = changesInWords(event);
  return (
    changes.length > 0 &&
    h(
      "ul.changes",
      null,
      changes.map(({ field, text }) => h("li", null, h("span.quiet", null, `${field}: `), text)),
    )
  );
}
