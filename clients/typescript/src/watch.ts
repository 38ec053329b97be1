import {
  create,
  type DescMessage,
  type DescMethodServerStreaming,
  type MessageInitShape,
  type MessageShape,
} from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { type Channel, X_REQUEST_ID } from "./channel.js";
import type { CursorStore } from "./cursor_stores.js";
import { type CommerceError, CredentialsError } from "./errors.js";
import { type CallSummary, errorOf, failureOf, pauseAfter } from "./failures.js";
import type { CallOptions } from "./options.js";
import { CursorExpired } from "./reasons.js";
import { ResponseStream } from "./response_stream.js";
import { fullJitter } from "./retry_policy.js";
import { sleep } from "./waiting.js";

/** Options of a watch. */
export interface WatchOptions extends Pick<CallOptions, "headers" | "onBehalfOf"> {
  /** Ends the watch, and its loop, without an error. */
  readonly signal?: AbortSignal | undefined;
  /** Where the cursor is stored. If it has one, the watch starts there, and not where the request says. */
  readonly cursorStore?: CursorStore | undefined;
  /**
   * How long the watch waits for the next response before it connects again, in milliseconds. Default: 30 000. The
   * service sends a checkpoint after 5 seconds (a setting of it) without an event.
   */
  readonly stallTimeoutMs?: number | undefined;
  /** How long the watch tries to get its first response, in milliseconds, before it throws. Default: 30 000. */
  readonly connectTimeoutMs?: number | undefined;
  /** Is told why the stream broke, and when the watch connects again. */
  readonly onReconnect?: ((error: CommerceError, delayMs: number) => void) | undefined;
  /**
   * Is called if the events after the cursor no longer exist, and should read the resources again. The watch then
   * continues with the earliest event. Without it, the watch throws the error.
   */
  readonly onGap?: ((gap: CursorExpired) => void | Promise<void>) | undefined;
}

/** An event, and the cursor with which a watch continues after it. */
export interface Watched<Event> {
  readonly event: Event;
  readonly cursor: string;
}

/** The responses of WatchUsers and WatchOrders. */
export interface WatchResponse<Event> {
  readonly cursor: string;
  readonly content: { readonly case: "event"; readonly value: Event } | { readonly case: "checkpoint" | undefined };
}

const DEFAULT_STALL_TIMEOUT_MS = 30_000;
const DEFAULT_CONNECT_TIMEOUT_MS = 30_000;
/** How many ids of events are remembered to drop repetitions, which follow closely. */
const REMEMBERED_EVENTS = 10_000;
/** Errors that end a stream in the normal course of things; a new one continues from the cursor. */
const CONTINUED = new Set(["SERVER_DRAINING", "SLOW_CONSUMER"]);

type Start = { case: "now" | "earliest"; value: boolean } | { case: "cursor"; value: string } | { case: undefined };

/**
 * Watch events: without gaps and repetitions, in order, until the loop or the signal ends it.
 *
 * Whenever the stream breaks or stalls, a new one continues from the last cursor. Throws what a new stream cannot mend,
 * for example a missing permission, and `CursorExpired` if there is a gap.
 */
export async function* watch<I extends DescMessage, O extends DescMessage, Event extends { readonly id: string }>(
  channel: Channel,
  method: DescMethodServerStreaming<I, O>,
  init: MessageInitShape<I>,
  options: WatchOptions = {},
): AsyncGenerator<Watched<Event>, void, undefined> {
  const stored = await options.cursorStore?.load();
  const linked = channel.begin(options.signal);
  const streams = new Streams<I, O, Event>(channel, method, create(method.input, init), options, linked.signal);
  if (stored !== undefined && stored !== "") streams.cursor = stored;
  const handled = new RecentIds(REMEMBERED_EVENTS);
  try {
    for (;;) {
      const response = await streams.next();
      if (response === undefined) return;
      const { cursor, content } = response;
      if (content.case === "event" && handled.add(content.value.id)) yield { event: content.value, cursor };
      // The consumer has asked for the next event, so it has handled this one, and those before.
      await options.cursorStore?.save(cursor);
    }
  } finally {
    streams.close();
    channel.end(linked);
  }
}

/** The streams of one watch, one after another. */
class Streams<I extends DescMessage, O extends DescMessage, Event> {
  /** Where the next stream continues; undefined: where the request says. */
  cursor: string | undefined;
  readonly #channel: Channel;
  readonly #method: DescMethodServerStreaming<I, O>;
  readonly #request: MessageShape<I>;
  readonly #start: Start;
  readonly #options: WatchOptions;
  readonly #signal: AbortSignal;
  readonly #stallMs: number;
  /** When the watch gives up if it has had no response by then; undefined after the first one. */
  #giveUpAt: number | undefined;
  #stream: ResponseStream<O> | undefined;
  #failures = 0;
  #credentialsRefused = false;

  constructor(
    channel: Channel,
    method: DescMethodServerStreaming<I, O>,
    request: MessageShape<I>,
    options: WatchOptions,
    signal: AbortSignal,
  ) {
    this.#channel = channel;
    this.#method = method;
    this.#request = request;
    const { start } = request as unknown as { readonly start: Start };
    this.#start = start.case === undefined ? { case: "now", value: true } : start;
    this.#options = options;
    this.#signal = signal;
    this.#stallMs = options.stallTimeoutMs ?? DEFAULT_STALL_TIMEOUT_MS;
    this.#giveUpAt = performance.now() + (options.connectTimeoutMs ?? DEFAULT_CONNECT_TIMEOUT_MS);
    signal.addEventListener("abort", this.close, { once: true });
  }

  /** Return the next response, or undefined after the signal. */
  async next(): Promise<WatchResponse<Event> | undefined> {
    while (!this.#signal.aborted) {
      const headers = this.#stream?.headers ?? this.#channel.headers(this.#options, false);
      try {
        this.#stream ??= await this.#open(headers);
        const response = (await this.#stream.next(this.#patience())) as WatchResponse<Event> | undefined;
        if (response === undefined) throw new ConnectError("the stream has ended", Code.Unavailable);
        this.#giveUpAt = undefined;
        this.#failures = 0;
        this.#credentialsRefused = false;
        this.cursor = response.cursor;
        return response;
      } catch (thrown) {
        this.close();
        if (!this.#signal.aborted) await this.#prepareStream(thrown, headers);
      }
    }
    return undefined;
  }

  readonly close = (): void => {
    this.#stream?.close();
    this.#stream = undefined;
  };

  async #open(headers: Headers): Promise<ResponseStream<O>> {
    await this.#channel.credentials.addTo(headers, () => this.#summary(headers));
    const start: Start = this.cursor === undefined ? this.#start : { case: "cursor", value: this.cursor };
    const request = { ...this.#request, start } as MessageInitShape<I>;
    return new ResponseStream(this.#channel, this.#method, request, headers);
  }

  #summary(headers: Headers): CallSummary {
    const xRequestId = headers.get(X_REQUEST_ID) ?? "";
    return { outcome: "not_written", method: this.#method.name, xRequestId, attempts: this.#failures };
  }

  /** Return how long to wait for the next response. */
  #patience(): number {
    if (this.#giveUpAt === undefined) return this.#stallMs;
    return Math.max(1, Math.min(this.#stallMs, this.#giveUpAt - performance.now()));
  }

  /** Wait until another stream may be opened; throws the error if that would not help. */
  async #prepareStream(thrown: unknown, headers: Headers): Promise<void> {
    this.#failures += 1;
    const failure = failureOf(thrown);
    const error = thrown instanceof CredentialsError ? thrown : errorOf(failure, this.#summary(headers));
    if (error instanceof CursorExpired && this.#options.onGap !== undefined && error.earliestCursor !== "") {
      await this.#options.onGap(error);
      this.cursor = error.earliestCursor;
      return;
    }
    if (failure.reason === "UNAUTHENTICATED_CALLER" && !this.#credentialsRefused) {
      this.#credentialsRefused = true;
      if (this.#channel.credentials.refused(headers)) return;
    }
    // Where the token comes from may be out of order for a while. At the start, the caller should know.
    const mended = failure.retryable || CONTINUED.has(failure.reason);
    if (thrown instanceof CredentialsError ? this.#giveUpAt !== undefined : !mended) throw error;
    const delay = pauseAfter(failure, fullJitter(this.#failures, this.#channel.retry));
    if (this.#giveUpAt !== undefined && performance.now() + delay >= this.#giveUpAt) throw error;
    this.#options.onReconnect?.(error, delay);
    // The loop of the caller sees that the signal has aborted.
    await sleep(delay, this.#signal).catch(() => undefined);
  }
}

/** The ids that came last. */
class RecentIds {
  readonly #size: number;
  // A set iterates in the order of insertion.
  readonly #ids = new Set<string>();

  constructor(size: number) {
    this.#size = size;
  }

  /** Add an id, and return whether it is new. */
  add(id: string): boolean {
    if (this.#ids.has(id)) return false;
    this.#ids.add(id);
    if (this.#ids.size > this.#size) {
      const [oldest] = this.#ids;
      if (oldest !== undefined) this.#ids.delete(oldest);
    }
    return true;
  }
}
