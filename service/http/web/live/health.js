/** The health of the server, as the health service reports it. */

import { h, replace } from "../lib/dom.js";
import { call, infoOf } from "../lib/rpc.js";
import { formatTime } from "../lib/time.js";
import { badge, card, definitions } from "../lib/ui.js";

const PERIOD_MS = 5_000;
const TIMEOUT_MS = 5_000;
const LIST = "grpc.health.v1.Health/List";

const NAMES = { "": "Process", readiness: "Ready for calls" };

/**
 * Return the card of the server's health, which is read every few seconds while the page is visible; `ask` reads it
 * now.
 */
export function healthCard(signal) {
  const body = h("div", null, h("p.quiet", null, "Asking …"));
  const summary = h("span", { role: "status" });
  // The status that screen readers have heard last.
  let told = "";
  let timer = 0;
  let isAsking = false;

  async function ask() {
    if (isAsking) {
      return;
    }
    isAsking = true;
    let status;
    try {
      const response = await call(LIST, {}, { signal, timeout: TIMEOUT_MS });
      const statuses = Object.entries(response.statuses ?? {}).sort(([one], [other]) => one.localeCompare(other));
      status = statuses.every(([, value]) => value.status === "SERVING") ? "serving" : "not serving";
      replace(
        body,
        definitions([
          ...statuses.map(([name, value]) => [label(name), servingBadge(value.status)]),
          ["Answer time", `${Math.round(infoOf(response).ms)} ms, seen from this browser`],
          ["Checked", formatTime(new Date().toISOString(), "time")],
        ]),
      );
    } catch (error) {
      if (signal.aborted) {
        return;
      }
      status = error.code === "UNAVAILABLE" ? "unreachable" : "unknown";
      replace(body, h("p", null, error.message), h("p.quiet", null, "The next check follows in some seconds."));
    } finally {
      isAsking = false;
    }
    if (status !== told) {
      told = status;
      replace(summary, statusBadge(status));
    }
    schedule();
  }

  function schedule() {
    clearTimeout(timer);
    if (!signal.aborted && !document.hidden) {
      timer = setTimeout(ask, PERIOD_MS);
    }
  }

  document.addEventListener("visibilitychange", () => !document.hidden && ask(), { signal });
  signal.addEventListener("abort", () => clearTimeout(timer));
  ask();
  const element = card({ title: "Health", actions: [summary] }, body);
  element.ask = ask;
  return element;
}

function label(name) {
  return NAMES[name] ?? name.split(".").at(-1);
}

function servingBadge(status) {
  return badge(status.replaceAll("_", " ").toLowerCase(), status === "SERVING" ? "good" : "bad");
}

function statusBadge(status) {
  return badge(status, status === "serving" ? "good" : "bad");
}
