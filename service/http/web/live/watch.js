/** A watch that goes on: it reconnects with its cursor, drops repeats, and says when events are missing. */

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 15_000;
// Servers send a checkpoint every few seconds, so a silent connection is a lost one.
const STALL_MS = 30_000;
const REMEMBERED_IDS = 2_000;
// A browser allows six connections to a server, and other tabs need some: a tab that nobody sees gives its own back.
const HIDDEN_MS = 10_000;

/** Errors after which the same call fails again, so that only a person can go on. */
const FINAL_CODES = new Set(["INVALID_ARGUMENT", "UNAUTHENTICATED", "PERMISSION_DENIED", "NOT_FOUND", "UNIMPLEMENTED"]);

/**
 * Follows events until it is stopped. All work is done by `run`; what happens is reported by callbacks.
 *
 * @property {string} cursor where the watch goes on; empty for "from now"
 */
export class Watch {
  /**
   * @param {object} options
   * @param {(request: object, options: {signal: AbortSignal}) => AsyncIterable<object>} options.open begins a stream
   * @param {object} options.filters fields of the request other than where it starts
   * @param {string} options.cursor where to start; empty means `start`
   * @param {"now" | "earliest"} options.start where to start without a cursor
   * @param {(event: object) => void} options.onEvent
   * @param {(gap: {from: string, reason: string}) => void} options.onGap events are missing here
   * @param {(state: {name: string, error?: object, seconds?: number, attempt?: number}) => void} options.onState `name`
   *   is connecting, live, waiting, failed or stopped
   * @param {(cursor: string) => void} options.onCursor to store it
   * @param {object} [options.clock] `setTimeout`, `clearTimeout` and `random`, for tests
   */
  constructor({
    open,
    filters = {},
    cursor = "",
    start = "now",
    onEvent,
    onGap,
    onState,
    onCursor,
    clock = globalClock,
  }) {
    Object.assign(this, { open, filters, cursor, start, onEvent, onGap, onState, onCursor, clock });
    this.controller = new AbortController();
    this.seen = new RecentIds(REMEMBERED_IDS);
  }

  /** Stop; `run` then ends without another callback. */
  stop() {
    this.controller.abort();
  }

  /** Follow events until `stop` is called or only a person can go on. */
  async run() {
    let attempt = 0;
    while (!this.controller.signal.aborted) {
      this.report({ name: "connecting", attempt });
      const failure = await this.follow(() => (attempt = 0));
      if (this.controller.signal.aborted) return;
      if (failure && !this.mend(failure) && FINAL_CODES.has(failure.code)) {
        this.report({ name: "failed", error: failure });
        return;
      }
      const ms = this.pause(attempt++, failure);
      this.report({ name: "waiting", error: failure, seconds: ms / 1000, attempt });
      await this.sleep(ms);
    }
  }

  /** Follow one stream; returns the error that ended it, or null if it ended without one. */
  async follow(onAnswer) {
    const attempt = new AbortController();
    const abort = () => attempt.abort();
    this.controller.signal.addEventListener("abort", abort, { once: true });
    let timer = this.clock.setTimeout(abort, STALL_MS);
    try {
      let isFirst = true;
      for await (const response of this.open(this.request(), { signal: attempt.signal })) {
        if (this.controller.signal.aborted) return null;
        this.clock.clearTimeout(timer);
        timer = this.clock.setTimeout(abort, STALL_MS);
        if (isFirst) {
          isFirst = false;
          onAnswer();
          this.report({ name: "live" });
        }
        this.take(response);
      }
      return null;
    } catch (error) {
      return error;
    } finally {
      this.clock.clearTimeout(timer);
      this.controller.signal.removeEventListener("abort", abort);
      attempt.abort();
    }
  }

  request() {
    if (this.cursor) return { ...this.filters, cursor: this.cursor };
    return { ...this.filters, [this.start]: true };
  }

  take(response) {
    if (response.event && this.seen.add(response.event.id)) this.onEvent(response.event);
    if (response.cursor) {
      this.cursor = response.cursor;
      this.onCursor(response.cursor);
    }
  }

  /** If the cursor is of no use any more, set another place to go on from; returns whether it did. */
  mend(error) {
    if (error.reason === "CURSOR_EXPIRED" && error.metadata?.earliest_cursor) {
      this.cursor = error.metadata.earliest_cursor;
      this.onGap({ reason: "expired" });
    } else if (error.reason === "INVALID_CURSOR" && this.cursor) {
      // Of another database, or signed with another key: nobody knows what is between.
      this.cursor = "";
      this.start = "now";
      this.onGap({ reason: "unknown" });
    } else {
      return false;
    }
    this.onCursor(this.cursor);
    return true;
  }

  /** Return how long to wait before the next attempt, in milliseconds: twice as long each time, at random up to that. */
  pause(attempt, error) {
    const longest = Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** Math.min(attempt, 10));
    const asked = error?.retryAfterMs ?? 0;
    return Math.max(asked, longest * (0.5 + this.clock.random() / 2));
  }

  sleep(ms) {
    const { signal } = this.controller;
    return new Promise((resolve) => {
      const wake = () => {
        this.clock.clearTimeout(timer);
        signal.removeEventListener("abort", wake);
        resolve();
      };
      const timer = this.clock.setTimeout(wake, ms);
      signal.addEventListener("abort", wake);
      this.wake = wake;
    });
  }

  /** Try again now instead of after the pause. */
  hurry() {
    this.wake?.();
  }

  report(state) {
    if (!this.controller.signal.aborted) this.onState(state);
  }
}

const globalClock = {
  setTimeout: (...args) => globalThis.setTimeout(...args),
  clearTimeout: (timer) => globalThis.clearTimeout(timer),
  random: () => Math.random(),
};

/**
 * Stop what a page follows ten seconds after the page was hidden, and when the user leaves it; follow again when it is
 * seen, and do not wait for the next attempt to connect when the device is online again.
 *
 * @param {object} options
 * @param {() => void} options.stop
 * @param {() => void} options.restart goes on where it stopped
 * @param {() => void} options.hurry
 * @param {AbortSignal} options.signal
 */
export function followWhileVisible({ stop, restart, hurry, signal }) {
  let hiding = 0;
  let isStopped = false;
  const changed = () => {
    clearTimeout(hiding);
    if (document.hidden) {
      hiding = setTimeout(() => {
        isStopped = true;
        stop();
      }, HIDDEN_MS);
    } else if (isStopped) {
      isStopped = false;
      restart();
    }
  };
  document.addEventListener("visibilitychange", changed, { signal });
  globalThis.addEventListener("online", hurry, { signal });
  signal.addEventListener("abort", () => {
    clearTimeout(hiding);
    stop();
  });
  // A link can be opened in a tab that is not seen.
  changed();
}

/** The last ids, to drop what a stream repeats. */
export class RecentIds {
  constructor(limit) {
    this.limit = limit;
    this.ids = new Set();
  }

  /** Return whether the id is new, and remember it. */
  add(id) {
    if (this.ids.has(id)) return false;
    this.ids.add(id);
    if (this.ids.size > this.limit) this.ids.delete(this.ids.values().next().value);
    return true;
  }
}
