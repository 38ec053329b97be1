/** The two watches of Live, of orders and of users, with their cursors and states. */

import { stream } from "../lib/rpc.js";
import { orders, users } from "../resources/methods.js";
import { followWhileVisible, Watch } from "./watch.js";

const KINDS = {
  order: { method: orders("WatchOrders"), key: "live.cursor.orders" },
  user: { method: users("WatchUsers"), key: "live.cursor.users" },
};

/** Cursors in the storage of this tab, so that a reloaded page goes on where it was. */
export const cursors = {
  get: (kind) => {
    try {
      return sessionStorage.getItem(KINDS[kind].key) ?? "";
    } catch {
      // Storage is blocked: a reloaded page begins anew.
      return "";
    }
  },
  set: (kind, cursor) => {
    try {
      sessionStorage.setItem(KINDS[kind].key, cursor);
    } catch {
      // As above.
    }
  },
  clear: () => {
    for (const kind of Object.keys(KINDS)) {
      cursors.set(kind, "");
    }
  },
};

/**
 * Follows events of orders and users. It stops while it is paused or the page is hidden, and goes on where it stopped.
 */
export class Feed {
  /**
   * @param {object} options
   * @param {(kind: string, event: object) => void} options.onEvent
   * @param {(kind: string, gap: object) => void} options.onGap
   * @param {(states: Record<string, object>) => void} options.onState
   * @param {AbortSignal} options.signal
   */
  constructor({ onEvent, onGap, onState, signal }) {
    Object.assign(this, { onEvent, onGap, onState, signal });
    // By kind; a kind that is not followed has none.
    this.watches = {};
    this.states = {};
    this.filters = {};
    this.start = "now";
    this.isPaused = false;
    followWhileVisible({
      stop: () => this.stop(),
      restart: () => this.restart(),
      hurry: () => this.hurry(),
      signal,
    });
  }

  /** Follow these kinds with these filters, from where each stopped; without a cursor, from `start`. */
  follow(filters, start = "now") {
    this.filters = filters;
    this.start = start;
    this.restart();
  }

  restart() {
    this.stop();
    for (const kind of Object.keys(this.filters)) {
      if (!this.isPaused) {
        this.open(kind);
      }
    }
    this.onState(this.states);
  }

  open(kind) {
    const watch = new Watch({
      open: (request, options) => stream(KINDS[kind].method, request, options),
      filters: this.filters[kind],
      cursor: cursors.get(kind),
      start: this.start,
      onEvent: (event) => this.onEvent(kind, event),
      onGap: (gap) => this.onGap(kind, gap),
      onCursor: (cursor) => cursors.set(kind, cursor),
      onState: (state) => {
        this.states = { ...this.states, [kind]: state };
        this.onState(this.states);
      },
    });
    this.watches[kind] = watch;
    watch.run();
  }

  stop() {
    for (const watch of Object.values(this.watches)) {
      watch.stop();
    }
    this.watches = {};
    this.states = {};
  }

  /** Stop until `resume`; nothing is lost. */
  pause() {
    this.isPaused = true;
    this.restart();
  }

  resume() {
    this.isPaused = false;
    this.restart();
  }

  /** Do not wait for the next attempt to connect. */
  hurry() {
    for (const watch of Object.values(this.watches)) {
      watch.hurry();
    }
  }
}
