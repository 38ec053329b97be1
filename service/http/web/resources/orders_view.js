/** The view of all orders: a table with filters. */

import { h } from "../lib/dom.js";
import { moneyElement } from "../lib/money.js";
import { navigate, setQuery } from "../lib/router.js";
import { call } from "../lib/rpc.js";
import { timeElement } from "../lib/time.js";
import { button, emptyState, field, pageHeader, table } from "../lib/ui.js";
import { openAction } from "./action_dialog.js";
import { createOrder } from "./actions_of_orders.js";
import { FieldProblem } from "./controls.js";
import { choice, choices, filterForm, grouped, interval, intervalOf, text, userIdOf } from "./filters.js";
import { orders } from "./methods.js";
import { workView } from "./navigation.js";
import { ORDER_STATUSES, statusOf } from "./order_actions.js";
import { orderKey } from "./order_key.js";
import { pager } from "./pager.js";
import { loaded, statusBadge, tagList } from "./parts.js";
import { fillNames, orderHref, remember, userLink } from "./references.js";

const PAGE_SIZE = 25;
const SORTS = { newest: "LIST_ORDERS_ORDER_BY_NEWEST", oldest: "LIST_ORDERS_ORDER_BY_OLDEST" };

/** Return the request of ListOrders for the query of an address, without its page. */
export function listRequest(query, userId) {
  const tags = tagsOf(query.get("tags") ?? "");
  return {
    ...(userId && { userId }),
    statuses: query.getAll("status").map((status) => `ORDER_STATUS_${status}`),
    createTime: intervalOf(query),
    ...(tags.length && { [query.get("match") === "any" ? "tagsAny" : "tagsAll"]: tags }),
    orderBy: SORTS[query.get("sort")] ?? SORTS.newest,
  };
}

function tagsOf(given) {
  return given
    .split(",")
    .map((tag) => tag.trim())
    .filter(Boolean);
}

/** The view. */
export default workView("orders", ({ query, signal }) => {
  let current = query;
  const results = loaded(load, signal);

  async function load() {
    const name = current.get("user") ?? "";
    let userId;
    try {
      userId = name && (await userIdOf(name, signal));
    } catch (error) {
      if (error instanceof FieldProblem || error.code === "NOT_FOUND") {
        return emptyState({ icon: "users", title: "No such user", text: `No user has the name or id ${name}.` });
      }
      throw error;
    }
    const request = listRequest(current, userId);
    const token = current.get("page") ?? "";
    const response = await call(
      orders("ListOrders"),
      { ...request, pageSize: PAGE_SIZE, pageToken: token },
      { signal },
    );
    const list = response.orders ?? [];
    for (const order of list) {
      remember("order", order);
    }
    const element = h(
      "div.results",
      null,
      list.length ? ordersTable(list) : nothing(),
      (list.length > 0 || token) &&
        pager({
          count: list.length,
          noun: "order",
          token,
          next: response.nextPageToken ?? "",
          onPage: (page) => show({ ...Object.fromEntries(grouped(current)), page }, { focus: true }),
          total: async () => {
            const counted = await call(
              orders("ListOrders"),
              { ...request, pageSize: 1, includeTotalSize: true },
              { signal },
            );
            return counted.totalSize ?? "0";
          },
        }),
    );
    fillNames(element, signal);
    return element;
  }

  function nothing() {
    const isFiltered = [...current.keys()].some((key) => key !== "sort");
    return isFiltered
      ? emptyState({ icon: "filter", title: "No order matches", text: "Remove a filter to see more." })
      : emptyState({ icon: "work", title: "No orders yet", text: "The first order appears here." });
  }

  function show(values, options) {
    current = setQuery(values);
    results.reload(options);
  }

  const place = async () => {
    const result = await openAction({ action: createOrder(null), signal });
    if (result?.response) {
      navigate(`/orders/${result.response.order.orderNumber}`);
    } else if (result) {
      results.reload();
    }
  };

  return [
    pageHeader({
      title: "Orders",
      actions: [
        button({ label: "Reload", icon: "refresh", onclick: () => results.reload() }),
        button({ label: "New order", icon: "plus", kind: "primary", onclick: place }),
      ],
    }),
    findForm(),
    filterForm(
      "Filter orders",
      show,
      choices({ label: "Status", name: "status", values: ORDER_STATUSES, chosen: query.getAll("status") }),
      h(
        "div.filter-row",
        null,
        text({ label: "User", name: "user", value: query.get("user") ?? "", placeholder: "username, e-mail or id" }),
        text({ label: "Tags", name: "tags", value: query.get("tags") ?? "", placeholder: "gift, priority" }),
        choice({
          label: "Tags match",
          name: "match",
          options: [
            ["", "all"],
            ["any", "any"],
          ],
          value: query.get("match") ?? "",
        }),
        choice({
          label: "Sort",
          name: "sort",
          options: [
            ["", "Newest first"],
            ["oldest", "Oldest first"],
          ],
          value: query.get("sort") ?? "",
        }),
      ),
      interval({ label: "Placed", query }),
    ),
    results,
  ];
});

/** Return a table of orders. */
export function ordersTable(list, { withUser = true } = {}) {
  const columns = [
    { label: "Number", cell: (order) => order.orderNumber, class: "number" },
    { label: "Status", cell: (order) => statusBadge(statusOf(order)) },
    withUser && { label: "User", cell: (order) => userLink(order.userId) },
    { label: "Items", cell: (order) => String(order.items?.length ?? 0), align: "end" },
    { label: "Total", cell: (order) => moneyElement(order.totalAmount), align: "end" },
    { label: "Tags", cell: (order) => tagList(order.tags) },
    { label: "Placed", cell: (order) => timeElement(order.createTime, "relative") },
  ].filter(Boolean);
  return table({ caption: "Orders", columns, rows: list, href: (order) => orderHref(order.orderNumber) });
}

/** Return the form that finds one order by its number or id. */
function findForm() {
  const input = h("input", { type: "search", autocomplete: "off", placeholder: "42, ord-42 or an id" });
  const element = field({ label: "Find by number or id", input });
  return h(
    "form.find",
    {
      "aria-label": "Find an order",
      role: "search",
      onsubmit: (event) => {
        event.preventDefault();
        const key = orderKey(input.value);
        element.setError(key ? "" : "This is no order number and no id. Write a number such as 42 or ORD-00000042.");
        if (key) {
          navigate(`/orders/${key.id ?? key.orderNumber}`);
        } else {
          input.focus();
        }
      },
    },
    element,
    button({ label: "Find", icon: "search", type: "submit" }),
  );
}
