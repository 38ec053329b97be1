/** The view of one order. It follows the order's events, so that it shows what others change. */

import { h, icon, replace } from "../lib/dom.js";
import { toast } from "../lib/feedback.js";
import { moneyElement } from "../lib/money.js";
import { setQuery } from "../lib/router.js";
import { call, stream } from "../lib/rpc.js";
import { timeElement } from "../lib/time.js";
import { card, copyButton, definitions, pageHeader, table } from "../lib/ui.js";
import { followWhileVisible, Watch } from "../live/watch.js";
import { openAction } from "./action_dialog.js";
import { orderAction, paymentInWords, removeTag } from "./actions_of_orders.js";
import { orders } from "./methods.js";
import { workView } from "./navigation.js";
import { notesCard } from "./notes_card.js";
import { ORDER_STATUSES, orderActions, statusOf } from "./order_actions.js";
import { orderKey } from "./order_key.js";
import { actionButtons, statusBadge } from "./parts.js";
import { fillNames, remember, userLink } from "./references.js";
import { timelineCard } from "./timeline.js";

// Several events often come together; one reload shows them all.
const GATHER_MS = 150;

/** The view. */
export default workView("orders", async ({ params, query, signal, setTitle }) => {
  const key = orderKey(params.key);
  if (!key) {
    return noSuchOrder(params.key);
  }
  let order;
  try {
    ({ order } = await call(orders("GetOrder"), key, { signal }));
  } catch (error) {
    if (error.code === "NOT_FOUND") {
      return noSuchOrder(key.orderNumber ?? key.id);
    }
    throw error;
  }
  setTitle(order.orderNumber);
  remember("order", order);
  return new OrderPage(order, signal).elements(query);
});

function noSuchOrder(name) {
  return h(
    "div.empty",
    null,
    h("h1", null, "No such order"),
    h("p", null, `There is no order ${name}, or it belongs to a user who was purged.`),
    h("p", null, h("a.button", { href: "#/orders" }, "All orders")),
  );
}

class OrderPage {
  constructor(order, signal) {
    this.order = order;
    this.signal = signal;
    this.header = h("div.order-header");
    this.facts = h("div.columns");
    this.follow = h("span.follow", { role: "status" });
    this.timeline = timelineCard(order, signal);
    this.notes = notesCard({
      title: "Notes",
      filter: { orderId: order.id },
      signal,
      onChange: () => this.timeline.reload(),
    });
  }

  elements(query) {
    this.show();
    this.watch();
    if (query.get("do")) {
      setTimeout(() => this.act(query.get("do")));
    }
    return [this.header, this.facts, h("div.columns", null, this.timeline, this.notes)];
  }

  show() {
    const { order } = this;
    const focused = document.activeElement?.dataset?.action;
    replace(
      this.header,
      pageHeader({
        title: [order.orderNumber, " ", statusBadge(statusOf(order))],
        lead: [
          "Placed by ",
          userLink(order.userId),
          " ",
          timeElement(order.createTime, "relative"),
          " · ",
          this.follow,
        ],
        back: { href: "#/orders", label: "Orders" },
      }),
      progress(order),
      actionButtons(orderActions(order), (name) => this.act(name), {
        primary: ["confirm", "process", "ship", "deliver"],
      }),
    );
    replace(this.facts, itemsCard(order), this.detailsCard());
    fillNames(this.header, this.signal);
    // The buttons are new, but the user is still where they were.
    if (focused) {
      (this.header.querySelector(`[data-action="${focused}"]`) ?? this.header.querySelector("h1")).focus();
    }
  }

  detailsCard() {
    const { order } = this;
    const metadata = Object.entries(order.metadata ?? {}).sort();
    const tags = (order.tags ?? []).map((tag) =>
      h(
        "span.tag",
        null,
        tag,
        h(
          "button.tag-remove",
          {
            type: "button",
            title: `Remove ${tag}`,
            "aria-label": `Remove the tag ${tag}`,
            onclick: () => this.run(() => removeTag(this.order, tag)),
          },
          icon("close"),
        ),
      ),
    );
    return card(
      { title: "Details" },
      definitions([
        ["Payment", paymentInWords(order) || "Not paid with credit"],
        ["Hold until", order.credit?.expireTime && timeElement(order.credit.expireTime)],
        ["Tracking number", order.trackingNumber],
        ["Cancelled because", order.cancelReason],
        ["External reference", order.externalRef],
        ["Tags", tags.length > 0 && h("span.tags", null, tags)],
        ...metadata.map(([name, value]) => [name, value || h("span.quiet", null, "empty")]),
        ["Placed", timeElement(order.createTime, "exact")],
        ["Changed", timeElement(order.updateTime, "exact")],
        ["Version", h("code", null, order.etag)],
        ["Id", [h("code", null, order.id), " ", copyButton(order.id, { label: "Copy the id", hideLabel: true })]],
      ]),
    );
  }

  /** Open the dialog of an action, if the order allows it. */
  act(name) {
    const found = orderActions(this.order).find((action) => action.name === name);
    if (found?.refusal) {
      toast(found.refusal);
    } else if (found) {
      setQuery({ do: name });
      this.run(() => (isPossible(name, this.order) ? orderAction(name, this.order) : null));
    }
  }

  /** Open a dialog; `make` returns its action for the order as it is then. */
  async run(make) {
    const result = await openAction({
      action: make(),
      reload: async () => {
        await this.read();
        return make();
      },
      signal: this.signal,
    });
    if (this.signal.aborted) {
      return;
    }
    setQuery({});
    if (result?.response?.order) {
      this.take(result.response.order);
    } else if (result?.changed) {
      await this.readAgain();
    }
    if (result && !this.signal.aborted) {
      this.timeline.reload({ quietly: true });
      this.notes.reload({ quietly: true });
    }
  }

  async read() {
    const { order } = await call(orders("GetOrder"), { id: this.order.id }, { signal: this.signal });
    this.take(order);
  }

  /** Read it after something may have changed; what else is shown is read also if this fails. */
  async readAgain() {
    try {
      await this.read();
    } catch (error) {
      if (!this.signal.aborted) {
        toast(error.message, { kind: "bad" });
      }
    }
  }

  take(order) {
    if (order.etag !== this.order.etag) {
      this.order = order;
      this.show();
    }
  }

  /** Reload whenever an event of the order comes. */
  watch() {
    const { id, userId } = this.order;
    let timer = 0;
    let cursor = "";
    let watch;
    const refresh = async ({ onlyIfChanged = false } = {}) => {
      const { etag } = this.order;
      try {
        await this.read();
      } catch (error) {
        // The watch goes on, and the next event tries again.
        replace(this.follow, error.message);
      }
      if (onlyIfChanged && this.order.etag === etag) {
        return;
      }
      this.timeline.reload({ quietly: true });
      this.notes.reload({ quietly: true });
    };
    const soon = () => {
      clearTimeout(timer);
      timer = setTimeout(refresh, GATHER_MS);
    };
    const open = () => {
      watch = new Watch({
        // By the user, because a request cannot name an order.
        open: (request, options) => stream(orders("WatchOrders"), request, options),
        filters: { userIds: [userId] },
        cursor,
        onEvent: (event) => event.orderId === id && soon(),
        onGap: soon,
        onCursor: (next) => {
          cursor = next;
        },
        onState: (state) => {
          replace(this.follow, followWords(state));
          // Without a cursor it begins now: what has changed since the order was read did not come as an event.
          if (state.name === "live" && !cursor) {
            refresh({ onlyIfChanged: true });
          }
        },
      });
      watch.run();
    };
    open();
    followWhileVisible({
      stop: () => watch.stop(),
      restart: open,
      hurry: () => watch.hurry(),
      signal: this.signal,
    });
    this.signal.addEventListener("abort", () => clearTimeout(timer));
  }
}

function isPossible(name, order) {
  return orderActions(order).some((action) => action.name === name && !action.refusal);
}

function followWords({ name }) {
  return {
    connecting: "connecting …",
    live: [h("span.dot", { "aria-hidden": "true" }), "updates by itself"],
    waiting: "connection lost, trying again",
    failed: "does not update by itself: reload the page to see changes",
  }[name];
}

/** Return the way of an order from PENDING to DELIVERED, with where it is. */
function progress(order) {
  const status = statusOf(order);
  const path = status === "CANCELLED" ? ["CANCELLED"] : ORDER_STATUSES.filter((name) => name !== "CANCELLED");
  const reached = path.indexOf(status);
  return h(
    "ol.steps",
    { "aria-label": "Progress" },
    path.map((name, index) =>
      h(
        "li",
        {
          class: index < reached ? "past" : index === reached ? "now" : "",
          "aria-current": index === reached ? "step" : null,
        },
        name,
      ),
    ),
  );
}

function itemsCard(order) {
  const items = order.items ?? [];
  return card(
    { title: `Items (${items.length})`, class: "items-card" },
    table({
      caption: "Items",
      columns: [
        { label: "Product", cell: (item) => h("div", null, item.name, h("div.quiet", null, item.productId)) },
        { label: "Quantity", cell: (item) => String(item.quantity), align: "end" },
        { label: "Unit price", cell: (item) => moneyElement(item.unitPrice), align: "end" },
        { label: "Subtotal", cell: (item) => moneyElement(item.subtotal), align: "end" },
      ],
      rows: items,
    }),
    h("p.grand-total", null, h("span", null, "Total"), h("strong", null, moneyElement(order.totalAmount))),
  );
}
