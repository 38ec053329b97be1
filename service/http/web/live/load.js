/** What the server does: calls by outcome, their durations, and the connections of its pool. */

import { credentialHeaders, onCredentials } from "../lib/credentials.js";
import { h, replace } from "../lib/dom.js";
import { responseFailure } from "../lib/rpc.js";
import { badge, card, definitions } from "../lib/ui.js";

const PERIOD_MS = 2_000;
const DOCUMENT = "status.json";
// What the service did wrong, or could not do; other codes are the callers'.
const SERVER_CODES = new Set([
  "UNKNOWN",
  "DEADLINE_EXCEEDED",
  "RESOURCE_EXHAUSTED",
  "INTERNAL",
  "UNAVAILABLE",
  "DATA_LOSS",
  "UNIMPLEMENTED",
]);

/**
 * Return what happened between two states of a server: `{seconds, ok, refused, failed, p50, p99}`, rates by second and
 * durations in seconds; null if they are not of one process, or nothing can be said yet.
 *
 * `refused` are calls with a code that tells the caller what is wrong with the call, and `failed` the others without OK.
 */
export function between(before, after) {
  if (before?.state.startTime !== after.state.startTime || after.time <= before.time) {
    return null;
  }
  const seconds = (after.time - before.time) / 1000;
  const rates = { ok: 0, refused: 0, failed: 0 };
  for (const [code, count] of Object.entries(after.state.outcomes)) {
    const kind = code === "OK" ? "ok" : SERVER_CODES.has(code) ? "failed" : "refused";
    rates[kind] += (count - (before.state.outcomes[code] ?? 0)) / seconds;
  }
  const counts = after.state.durations.counts.map((count, index) => count - before.state.durations.counts[index]);
  const { bounds } = after.state.durations;
  return { seconds, ...rates, p50: quantile(0.5, counts, bounds), p99: quantile(0.99, counts, bounds) };
}

/** Return the estimate of a quantile, evenly within its bucket as Prometheus does it; null without any value. */
export function quantile(part, counts, bounds) {
  const rank = part * counts.reduce((sum, count) => sum + count, 0);
  if (!rank) {
    return null;
  }
  let below = 0;
  for (const [index, count] of counts.entries()) {
    if (below + count >= rank) {
      const lower = index ? bounds[index - 1] : 0;
      // The last bucket has no bound.
      return index < bounds.length ? lower + ((bounds[index] - lower) * (rank - below)) / count : lower;
    }
    below += count;
  }
  return null;
}

/** Return the card, which is read every two seconds while the page is visible. */
export function loadCard(signal) {
  const body = h("div", null, h("p.quiet", null, "Asking …"));
  let last = null;
  let timer = 0;
  let isAsking = false;

  async function ask() {
    if (isAsking) {
      return;
    }
    isAsking = true;
    clearTimeout(timer);
    try {
      const response = await fetch(DOCUMENT, {
        headers: credentialHeaders(),
        credentials: "omit",
        cache: "no-store",
        signal,
      });
      if (response.ok) {
        const read = { time: performance.now(), state: await response.json() };
        show(read, between(last, read));
        last = read;
      } else {
        last = null;
        const hint = "The server counts nothing: COMMERCE_METRICS_PORT is not set.";
        replace(body, h("p", null, response.status === 404 ? hint : await responseFailure(response)));
      }
    } catch {
      if (signal.aborted) {
        return;
      }
      last = null;
      replace(body, h("p", null, "The server cannot be reached."));
    } finally {
      isAsking = false;
    }
    if (!document.hidden) {
      timer = setTimeout(ask, PERIOD_MS);
    }
  }

  function show({ state }, change) {
    const { pool } = state;
    replace(
      body,
      h(
        "p.load-numbers",
        null,
        rate(change?.ok, "OK"),
        rate(change?.refused, "refused"),
        rate(change?.failed, "failed"),
      ),
      definitions(
        [
          ["Half of the calls within", duration(change?.p50)],
          ["99 % of the calls within", duration(change?.p99)],
          ["Calls that run", String(state.running)],
          pool && [
            "Connections in use",
            h(
              "span",
              null,
              `${pool.inUse} of ${pool.size} `,
              pool.waiting > 0 && badge(`${pool.waiting} wait`, "warn"),
            ),
          ],
        ].filter(Boolean),
      ),
      h("p.quiet", null, "Calls per second of the process that answers this page, over the last two seconds."),
    );
  }

  document.addEventListener("visibilitychange", () => !document.hidden && ask(), { signal });
  signal.addEventListener("abort", () => clearTimeout(timer));
  // Another caller may see more, or less.
  onCredentials(() => ask(), signal);
  ask();
  return card({ title: "Calls of the server" }, body);
}

function rate(value, words) {
  return h(
    "span",
    { dataset: { outcome: words } },
    h("strong", null, value === undefined ? "–" : inWords(value)),
    ` ${words}`,
  );
}

function inWords(value) {
  return value >= 10 || value === 0 ? String(Math.round(value)) : value.toFixed(1);
}

function duration(seconds) {
  if (seconds === null || seconds === undefined) {
    return "–";
  }
  const ms = seconds * 1000;
  return ms >= 1000 ? `${(ms / 1000).toFixed(1)} s` : `${ms >= 10 ? Math.round(ms) : ms.toFixed(1)} ms`;
}
