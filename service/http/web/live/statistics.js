/** The orders of the last 24 hours, by status and currency. */

import { onCredentials } from "../lib/credentials.js";
import { moneyElement } from "../lib/money.js";
import { href } from "../lib/router.js";
import { call } from "../lib/rpc.js";
import { button, card, emptyState, table } from "../lib/ui.js";
import { moneyOf, nanosOf } from "../resources/amounts.js";
import { orders } from "../resources/methods.js";
import { ORDER_STATUSES, plainName } from "../resources/order_actions.js";
import { loaded, statusBadge } from "../resources/parts.js";

const DAY_MS = 86_400_000;

/** Return one row for each status and currency, over all days; orders of status first, then of currency. */
function summed(statistics) {
  const rows = new Map();
  for (const { status, orderCount, totalAmount } of statistics) {
    const key = `${status} ${totalAmount?.currencyCode ?? ""}`;
    const row = rows.get(key) ?? {
      status: plainName(status, "ORDER_STATUS_"),
      currencyCode: totalAmount?.currencyCode ?? "",
      count: 0n,
      nanos: 0n,
    };
    row.count += BigInt(orderCount ?? 0);
    row.nanos += nanosOf(totalAmount);
    rows.set(key, row);
  }
  const place = ({ status }) => ORDER_STATUSES.indexOf(status);
  return [...rows.values()].sort(
    (one, other) => place(one) - place(other) || one.currencyCode.localeCompare(other.currencyCode),
  );
}

/** Return the card. Statistics take time, so they are read when the user asks for them. */
export function statisticsCard(signal) {
  let since = "";
  const list = loaded(async () => {
    since = new Date(Date.now() - DAY_MS).toISOString();
    const request = { createTime: { startTime: since }, maxTopUsers: 1 };
    const { statistics = [] } = await call(orders("GetOrderStatistics"), request, { signal });
    const rows = summed(statistics);
    if (!rows.length) {
      return emptyState({ icon: "work", title: "No orders", text: "No order was placed in the last 24 hours." });
    }
    return table({
      caption: "Orders by status",
      rows,
      href: ({ status }) => href("/orders", { status, from: since }),
      columns: [
        { label: "Status", cell: ({ status }) => statusBadge(status) },
        { label: "Orders", cell: ({ count }) => String(count), align: "end" },
        { label: "Sum", cell: ({ nanos, currencyCode }) => moneyElement(moneyOf(nanos, currencyCode)), align: "end" },
      ],
    });
  }, signal);
  onCredentials(() => list.reload(), signal);
  return card(
    {
      title: "Orders of the last 24 hours",
      actions: [
        button({ label: "Reload", icon: "refresh", hideLabel: true, kind: "quiet", onclick: () => list.reload() }),
      ],
    },
    list,
  );
}
