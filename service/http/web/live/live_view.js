/** The view of what happens now: events as they come, and the state of the server. */

import { onCredentials } from "../lib/credentials.js";
import { h, icon, replace } from "../lib/dom.js";
import { announce } from "../lib/feedback.js";
import { setQuery } from "../lib/router.js";
import { badge, button, card, errorPanel, pageHeader } from "../lib/ui.js";
import { counted } from "../lib/words.js";
import { FieldProblem } from "../resources/controls.js";
import { ORDER_EVENT_TYPES, USER_EVENT_TYPES } from "../resources/event_words.js";
import { choice, choices, filterForm, grouped, text, userIdOf } from "../resources/filters.js";
import { explainFailures } from "../resources/navigation.js";
import { ORDER_STATUSES, plainName } from "../resources/order_actions.js";
import { fillNames } from "../resources/references.js";
import { entryElement } from "./entry.js";
import { EventLog, Rate } from "./event_log.js";
import { cursors, Feed } from "./feed.js";
import { healthCard } from "./health.js";
import { loadCard } from "./load.js";
import { sparkline } from "./sparkline.js";
import { statisticsCard } from "./statistics.js";

const KEPT = 300;
const NAMES_EVERY_MS = 700;
const RATE_EVERY_MS = 1_000;

/** The view. */
export default function liveView({ query, signal }) {
  explainFailures();
  return new LivePage(query, signal).element();
}

class LivePage {
  constructor(query, signal) {
    this.query = query;
    this.signal = signal;
    this.log = new EventLog(KEPT);
    this.rates = { order: new Rate(), user: new Rate() };
    // Entries that have come since the list was drawn last.
    this.fresh = [];
    // Where to begin anew, until that was done.
    this.start = "";
    this.list = h("ol.events", { "aria-label": "Events, newest first" });
    this.state = h("div.feed-state", { role: "status" });
    this.problem = h("div");
    this.health = healthCard(signal);
    this.count = h("span.quiet");
    this.rate = h("div.rate");
    this.pauseButton = button({ label: "Pause", icon: "stop", onclick: () => this.togglePause() });
    this.feed = new Feed({
      onEvent: (kind, event) => this.received(kind, event),
      onGap: (kind, gap) => this.add({ mark: "gap", kind, ...gap }),
      onState: (states) => this.showState(states),
      signal,
    });
    // Another caller may see other events.
    onCredentials(() => this.begin("now"), signal);
  }

  element() {
    const { query, signal } = this;
    this.empty = h("p.empty-line", null, "No event yet. What happens from now on appears here.");
    const hasCursor = Boolean(cursors.get("order") || cursors.get("user"));
    if (query.get("start") === "earliest") {
      // Not again after a reload, which goes on where it stopped.
      const rest = new URLSearchParams(query);
      rest.delete("start");
      setQuery(Object.fromEntries(grouped(rest)));
      this.begin("earliest");
    } else {
      if (hasCursor) {
        this.add({ mark: "resumed" });
      }
      this.apply();
    }
    const drawing = setInterval(() => this.drawRates(), RATE_EVERY_MS);
    const naming = setInterval(() => this.nameSubjects(), NAMES_EVERY_MS);
    signal.addEventListener("abort", () => {
      clearInterval(drawing);
      clearInterval(naming);
    });
    this.drawRates();
    return h(
      "div.page.live",
      null,
      pageHeader({
        title: "Live",
        lead: "Events of orders and users as they happen. After a lost connection or a reload, they go on where they stopped.",
        actions: [
          this.pauseButton,
          button({ label: "Clear", icon: "trash", onclick: () => this.clear() }),
          button({ label: "From the earliest", icon: "history", onclick: () => this.begin("earliest") }),
        ],
      }),
      h(
        "details.filter-disclosure",
        { open: [...query.keys()].some((key) => key !== "start") },
        h("summary", null, icon("filter"), "Filter"),
        filterForm(
          "Filter events",
          (values) => this.filter(values),
          choices({ label: "Show", name: "of", values: ["orders", "users"], chosen: query.getAll("of") }),
          choices({
            label: "Status of the order after the event",
            name: "status",
            values: ORDER_STATUSES,
            chosen: query.getAll("status"),
          }),
          h(
            "div.filter-row",
            null,
            text({
              label: "User",
              name: "user",
              value: query.get("user") ?? "",
              placeholder: "username, e-mail or id",
            }),
            choice({
              label: "Event",
              name: "type",
              options: [
                ["", "all"],
                ...[...new Set([...ORDER_EVENT_TYPES, ...USER_EVENT_TYPES])].map((type) => [type, words(type)]),
              ],
              value: query.get("type") ?? "",
            }),
            text({ label: "Caller", name: "actor", value: query.get("actor") ?? "", placeholder: "key:shop" }),
          ),
        ),
      ),
      this.problem,
      h(
        "div.live-columns",
        null,
        card({ title: "Events", actions: [this.count, this.state], class: "events-card" }, this.empty, this.list),
        h(
          "div.glance",
          null,
          card({ title: "Received in the last minute" }, this.rate),
          loadCard(signal),
          this.health,
          statisticsCard(signal),
        ),
      ),
    );
  }

  /** Take over filters from the form. */
  filter(values) {
    this.query = setQuery(values);
    this.fresh = [];
    this.log.clear();
    this.redraw();
    this.apply();
  }

  /** Follow with the filters of the address: from where it stopped, or anew from `start`. */
  async apply(start = "") {
    const { query } = this;
    this.applied = (this.applied ?? 0) + 1;
    const own = this.applied;
    this.start = start || this.start;
    let userIds = [];
    try {
      const name = query.get("user") ?? "";
      userIds = name ? [await userIdOf(name, this.signal)] : [];
      replace(this.problem);
    } catch (error) {
      if (!this.signal.aborted && own === this.applied) {
        this.feed.follow({});
        const shown =
          error instanceof FieldProblem ? h("p.field-error", { role: "alert" }, error.message) : errorPanel(error);
        replace(this.problem, shown);
      }
      return;
    }
    const of = query.getAll("of");
    const statuses = query.getAll("status").map((status) => `ORDER_STATUS_${status}`);
    const filters = {};
    if (!of.length || of.includes("orders")) {
      filters.order = { userIds, statuses };
    }
    // Users have no status of an order, so a filter by one means orders.
    if ((!of.length && !statuses.length) || of.includes("users")) {
      filters.user = { userIds };
    }
    // A later choice may have been answered sooner.
    if (!this.signal.aborted && own === this.applied) {
      if (this.start) {
        cursors.clear();
      }
      this.feed.follow(filters, this.start || "now");
      this.start = "";
    }
  }

  /** Forget where it stopped, and begin anew. */
  begin(start) {
    // What still comes on the old streams is no longer wanted.
    this.feed.stop();
    this.clear();
    this.add({ mark: start });
    this.apply(start);
  }

  received(kind, event) {
    this.rates[kind].count();
    const type = this.query.get("type");
    const actor = this.query.get("actor");
    const isWanted =
      (!type || plainName(event.type, kind === "order" ? "ORDER_EVENT_TYPE_" : "USER_EVENT_TYPE_") === type) &&
      (!actor || (event.actor ?? "").includes(actor));
    if (isWanted) {
      this.add({ kind, event });
    }
  }

  add(entry) {
    this.log.add(entry);
    this.fresh.push(entry);
    // One drawing for all that come together.
    this.frame ??= requestAnimationFrame(() => this.draw());
  }

  draw() {
    this.frame = null;
    if (this.signal.aborted) {
      return;
    }
    const entries = this.fresh.splice(0).slice(-KEPT).reverse();
    this.list.prepend(...entries.map(entryElement));
    while (this.list.childElementCount > KEPT) {
      this.list.lastElementChild.remove();
    }
    this.showCount();
  }

  redraw() {
    this.fresh = [];
    replace(this.list, this.log.entries.map(entryElement));
    this.showCount();
  }

  showCount() {
    const { entries, dropped } = this.log;
    const events = entries.filter(({ event }) => event).length;
    this.empty.hidden = entries.length > 0;
    replace(this.count, dropped ? `the last ${events} events` : counted(events, "event"));
  }

  clear() {
    this.log.clear();
    this.redraw();
    announce("The list is empty");
  }

  togglePause() {
    const { feed } = this;
    feed.isPaused ? feed.resume() : feed.pause();
    this.pauseButton.querySelector("span").textContent = feed.isPaused ? "Resume" : "Pause";
    this.pauseButton.setAttribute("aria-pressed", String(feed.isPaused));
  }

  showState(states) {
    if (this.feed.isPaused) {
      replace(this.state, badge("paused: resuming continues here", "warn"));
      return;
    }
    const all = Object.entries(states);
    const failed = all.filter(([, { name }]) => name === "failed");
    const waiting = all.filter(([, { name }]) => name === "waiting");
    replace(
      this.problem,
      failed.map(([kind, { error }]) => [
        h("p", null, `Events of ${kind}s cannot be followed:`),
        errorPanel(error, { retry: () => this.apply() }),
      ]),
    );
    // A connection that was lost or is back says something about the server.
    if (this.wasWaiting !== waiting.length > 0) {
      this.wasWaiting = waiting.length > 0;
      this.health.ask();
    }
    if (waiting.length) {
      const [, { seconds, attempt }] = waiting[0];
      const retry = button({ label: "Now", class: "small", onclick: () => this.feed.hurry() });
      replace(this.state, badge(`connection lost, attempt ${attempt + 1} in ${Math.ceil(seconds)} s`, "bad"), retry);
    } else if (all.some(([, { name }]) => name === "connecting")) {
      replace(this.state, badge("connecting …", "info"));
    } else if (failed.length) {
      replace(this.state, badge(failed.length === all.length ? "stopped" : "partly stopped", "bad"));
    } else if (all.length) {
      replace(this.state, h("span.badge.good", null, h("span.dot", { "aria-hidden": "true" }), "live"));
    } else {
      replace(this.state);
    }
  }

  drawRates() {
    const { order, user } = this.rates;
    const ofUsers = user.bySecond();
    const counts = order.bySecond().map((count, index) => count + ofUsers[index]);
    replace(
      this.rate,
      h(
        "p.rate-numbers",
        null,
        h("span", null, h("strong", null, String(order.lastMinute())), " of orders"),
        h("span", null, h("strong", null, String(user.lastMinute())), " of users"),
      ),
      sparkline(counts),
      h("p.quiet", null, "Events that this page has received, with its filters."),
    );
  }

  nameSubjects() {
    // Nobody reads them now; they are named when the tab is seen again.
    if (!document.hidden && this.list.querySelector("a[data-order], a[data-user]")) {
      fillNames(this.list, this.signal);
    }
  }
}

function words(type) {
  return type.charAt(0) + type.slice(1).toLowerCase().replaceAll("_", " ");
}
