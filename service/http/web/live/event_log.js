/** The events that Live shows: the last ones, and how many came in the last minute. */

const MINUTE_MS = 60_000;

/** A bounded list, newest first, of events, gaps and other marks. */
export class EventLog {
  /** @param {number} limit how many entries to keep */
  constructor(limit) {
    this.limit = limit;
    this.entries = [];
    this.dropped = 0;
  }

  /** Add an entry; the oldest one is dropped if there are too many. */
  add(entry) {
    this.entries.unshift(entry);
    if (this.entries.length > this.limit) {
      this.dropped += this.entries.length - this.limit;
      this.entries.length = this.limit;
    }
  }

  clear() {
    this.entries = [];
    this.dropped = 0;
  }
}

/** Counts by the second for the last minute. */
export class Rate {
  constructor(now = () => Date.now()) {
    this.now = now;
    // The number of events by second.
    this.seconds = new Map();
  }

  /** Count an event that has just come. */
  count() {
    const second = Math.floor(this.now() / 1000);
    this.seconds.set(second, (this.seconds.get(second) ?? 0) + 1);
    this.forget();
  }

  /** Return the counts of the last 60 seconds, oldest first. */
  bySecond() {
    const last = Math.floor(this.now() / 1000);
    return Array.from({ length: 60 }, (_, index) => this.seconds.get(last - 59 + index) ?? 0);
  }

  /** Return how many events came in the last minute. */
  lastMinute() {
    return this.bySecond().reduce((sum, count) => sum + count, 0);
  }

  forget() {
    const oldest = Math.floor((this.now() - MINUTE_MS) / 1000);
    for (const second of this.seconds.keys()) if (second < oldest) this.seconds.delete(second);
  }
}
