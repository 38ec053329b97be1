/** The last calls that were made here. */

import { h } from "../lib/dom.js";
import { announce, confirmDialog } from "../lib/feedback.js";
import { href, navigate } from "../lib/router.js";
import { loadSchema } from "../lib/schema.js";
import { timeElement } from "../lib/time.js";
import { badge, button, emptyState, notice, pageHeader, table } from "../lib/ui.js";
import { calls, forgetCalls } from "./history_store.js";

export default async function view() {
  const schema = await loadSchema();
  // A method that this server no longer has cannot be called.
  const shown = calls().filter((call) => schema.method(call.method));
  const clear = button({
    label: "Clear",
    icon: "trash",
    onclick: async () => {
      if (
        await confirmDialog({
          title: "Clear the history?",
          body: "The calls are forgotten by this browser. What they did stays.",
          confirm: "Clear",
          danger: true,
        })
      ) {
        forgetCalls();
        announce("The history is empty");
        navigate("/explore/history", {}, { replace: true });
      }
    },
  });
  return h(
    "div.page",
    null,
    pageHeader({
      title: "History",
      back: { href: "#/explore", label: "Explore" },
      lead: "The last 100 calls of Explore, in the storage of this browser.",
      actions: shown.length ? [clear] : [],
    }),
    shown.length > 0 &&
      notice(
        "info",
        "Requests are kept without passwords, and without credentials and responses. On a machine that others use, clear the history when you leave.",
      ),
    shown.length
      ? list(shown)
      : emptyState({
          icon: "history",
          title: "No calls yet",
          text: "Calls that you make in Explore appear here.",
          action: h("a.button.primary", { href: "#/explore" }, "Choose a method"),
        }),
  );
}

function list(shown) {
  return table({
    caption: "Calls",
    rows: shown,
    href: (call) => href(`/explore/${call.method}`, { call: call.id }),
    columns: [
      { label: "Method", cell: (call) => call.method.split("/")[1] },
      {
        label: "Result",
        cell: (call) =>
          badge(call.reason || call.code, call.code === "OK" ? "good" : call.code === "STOPPED" ? "neutral" : "bad"),
      },
      {
        label: "Request",
        class: "history-request",
        cell: (call) => h("code", null, call.request ? JSON.stringify(call.request) : "too large to keep"),
      },
      { label: "Took", align: "end", cell: (call) => h("span.number", null, `${call.ms} ms`) },
      { label: "When", cell: (call) => timeElement(call.at, "exact") },
    ],
  });
}
