/** The credit of a user: balances by currency, and the entries of the ledger. */

import { h } from "../lib/dom.js";
import { moneyElement } from "../lib/money.js";
import { call } from "../lib/rpc.js";
import { timeElement } from "../lib/time.js";
import { card, emptyState, select, table } from "../lib/ui.js";
import { actorInWords } from "./event_words.js";
import { users } from "./methods.js";
import { plainName } from "./order_actions.js";
import { pager } from "./pager.js";
import { loaded } from "./parts.js";
import { fillNames, orderLink } from "./references.js";

const PAGE_SIZE = 10;

const ENTRY_TYPES = {
  GRANT: "Granted",
  TRANSFER: "Transferred",
  HOLD: "Held for an order",
  VOID: "Hold returned",
  POST: "Spent",
  REVERSAL: "Returned",
};

/** Return the card of a user's credit. `balances()` returns those read last. */
export function creditCard(user, signal) {
  let balances = [];
  let token = "";
  let currency = "";

  const summary = loaded(async () => {
    ({ balances = [] } = await call(users("GetCreditBalance"), { userId: user.id }, { signal }));
    return balances.length
      ? [balancesTable(balances), h("div.ledger", null, h("h3", null, "Ledger"), currencyChoice(), entries)]
      : emptyState({ title: "No credit", text: "This user has never had credit." });
  }, signal);

  const entries = loaded(async () => {
    const request = { userId: user.id, currencyCode: currency, pageSize: PAGE_SIZE, pageToken: token };
    const response = await call(users("ListCreditEntries"), request, { signal });
    const list = response.entries ?? [];
    const element = h(
      "div.results",
      null,
      list.length ? entriesTable(list) : emptyState({ title: "No entries" }),
      (token || response.nextPageToken) &&
        pager({ count: list.length, noun: "entry", token, next: response.nextPageToken ?? "", onPage: turn }),
    );
    fillNames(element, signal);
    return element;
  }, signal);

  function turn(page) {
    token = page;
    entries.reload();
  }

  function currencyChoice() {
    const codes = balances.map(codeOf);
    return (
      codes.length > 1 &&
      h(
        "label.inline",
        null,
        "Currency ",
        select([["", "all"], ...codes], {
          value: currency,
          onchange: (event) => {
            currency = event.target.value;
            turn("");
          },
        }),
      )
    );
  }

  const element = card({ title: "Credit" }, summary);
  element.balances = () => balances;
  element.reload = async (options) => {
    token = "";
    await summary.reload(options);
    await entries.reload(options);
  };
  return element;
}

function codeOf({ available, held }) {
  return (available ?? held)?.currencyCode ?? "";
}

function balancesTable(balances) {
  return table({
    caption: "Balances",
    rows: balances,
    columns: [
      { label: "Currency", cell: codeOf },
      { label: "Available", cell: ({ available }) => moneyElement(available), align: "end" },
      { label: "Held for orders", cell: ({ held }) => moneyElement(held), align: "end" },
    ],
  });
}

function entriesTable(entries) {
  return table({
    caption: "Ledger entries",
    rows: entries,
    columns: [
      {
        label: "Entry",
        cell: (entry) =>
          h(
            "div",
            null,
            ENTRY_TYPES[plainName(entry.type, "CREDIT_ENTRY_TYPE_")] ?? entry.type,
            h("div.quiet", null, origin(entry)),
          ),
      },
      { label: "Account", cell: (entry) => (entry.account === "CREDIT_ACCOUNT_HELD" ? "held" : "available") },
      { label: "Amount", cell: (entry) => moneyElement(entry.amount), align: "end" },
      { label: "Balance", cell: (entry) => moneyElement(entry.balanceAfter), align: "end" },
    ],
  });
}

/** Return when, why, for which order and by whom an entry was made. */
function origin(entry) {
  const parts = [
    timeElement(entry.createTime),
    entry.description,
    entry.orderId && orderLink(entry.orderId),
    `by ${actorInWords(entry)}`,
  ];
  return parts.filter(Boolean).flatMap((part, index) => (index ? [" · ", part] : [part]));
}
