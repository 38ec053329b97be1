import {
  create,
  type DescMessage,
  type DescMethodServerStreaming,
  type MessageInitShape,
  type MessageShape,
} from "@bufbuild/protobuf";
import type { Timestamp } from "@bufbuild/protobuf/wkt";
import { type Channel, X_REQUEST_ID } from "./channel.js";
import type { Cancelled } from "./errors.js";
import { type CallSummary, cancelled, errorOf, type Failure, failureOf, pauseAfter } from "./failures.js";
import { type Interval, IntervalSchema } from "./gen/google/type/interval_pb.js";
import type { CallOptions } from "./options.js";
import { itemsField } from "./pages.js";
import { ResponseStream } from "./response_stream.js";
import { fullJitter } from "./retry_policy.js";
import { sleep } from "./waiting.js";

/** Options of an export. */
export interface ExportOptions extends Pick<CallOptions, "headers" | "onBehalfOf" | "signal"> {
  /** How long the export may make no progress, in milliseconds. Default: 30 000. */
  readonly timeoutMs?: number | undefined;
}

interface Exported {
  readonly id: string;
  readonly createTime?: Timestamp;
}

/**
 * Export all that match, in order of creation.
 *
 * If the stream breaks, another one continues from the `createTime` of the last item, without those received already:
 * then the items before and after come from two snapshots instead of one.
 */
export async function* exportAll<I extends DescMessage, O extends DescMessage, Item extends Exported>(
  channel: Channel,
  method: DescMethodServerStreaming<I, O>,
  init: MessageInitShape<I>,
  options: ExportOptions = {},
): AsyncGenerator<Item, void, undefined> {
  const linked = channel.begin(options.signal);
  const streams = new ExportStreams<I, O, Item>(channel, method, create(method.input, init), options, linked.signal);
  try {
    for (let items = await streams.next(); items !== undefined; items = await streams.next()) yield* items;
  } finally {
    streams.close();
    channel.end(linked);
  }
}

/** The streams of one export, one after another. */
class ExportStreams<I extends DescMessage, O extends DescMessage, Item extends Exported> {
  readonly #channel: Channel;
  readonly #method: DescMethodServerStreaming<I, O>;
  readonly #request: MessageShape<I> & { createTime?: Interval };
  readonly #options: ExportOptions;
  readonly #signal: AbortSignal;
  readonly #timeoutMs: number;
  #stream: ResponseStream<O> | undefined;
  #failures = 0;
  #giveUpAt: number;
  /** The `createTime` of the last item, and the ids received with it. */
  #lastTime: Timestamp | undefined;
  #lastIds = new Set<string>();

  constructor(
    channel: Channel,
    method: DescMethodServerStreaming<I, O>,
    request: MessageShape<I>,
    options: ExportOptions,
    signal: AbortSignal,
  ) {
    this.#channel = channel;
    this.#method = method;
    this.#request = request as MessageShape<I> & { createTime?: Interval };
    this.#options = options;
    this.#signal = signal;
    this.#timeoutMs = channel.timeouts(options).totalMs;
    this.#giveUpAt = performance.now() + this.#timeoutMs;
    signal.addEventListener("abort", this.close, { once: true });
  }

  /** Return the next items, or undefined at the end. */
  async next(): Promise<readonly Item[] | undefined> {
    // The time in which the consumer handles items is its own.
    if (this.#failures === 0) this.#giveUpAt = performance.now() + this.#timeoutMs;
    for (;;) {
      if (this.#signal.aborted) throw this.#cancelled();
      this.#stream ??= await this.#open();
      const stream = this.#stream;
      try {
        const response = await stream.next(Math.max(1, this.#giveUpAt - performance.now()));
        this.#failures = 0;
        return response === undefined ? undefined : this.#newItems(response);
      } catch (thrown) {
        this.close();
        if (this.#signal.aborted) throw this.#cancelled();
        await this.#prepareStream(failureOf(thrown), stream.headers);
      }
    }
  }

  readonly close = (): void => {
    this.#stream?.close();
    this.#stream = undefined;
  };

  async #open(): Promise<ResponseStream<O>> {
    const headers = this.#channel.headers(this.#options, false);
    await this.#channel.credentials.addTo(headers, () => this.#summary(headers));
    const request = { ...this.#request };
    if (this.#lastTime !== undefined) {
      const endTime = request.createTime?.endTime;
      request.createTime = create(IntervalSchema, { startTime: this.#lastTime, ...(endTime && { endTime }) });
    }
    return new ResponseStream(this.#channel, this.#method, request as MessageInitShape<I>, headers);
  }

  #newItems(response: MessageShape<O>): readonly Item[] {
    const items = (response as Record<string, unknown>)[itemsField(this.#method.output).localName] as readonly Item[];
    const received = items.filter((item) => !(isSame(item.createTime, this.#lastTime) && this.#lastIds.has(item.id)));
    for (const { id, createTime } of received) {
      if (!isSame(createTime, this.#lastTime)) this.#lastIds = new Set();
      this.#lastTime = createTime;
      this.#lastIds.add(id);
    }
    return received;
  }

  /** Wait until another stream may be opened; throws the error if that would not help. */
  async #prepareStream(failure: Failure, headers: Headers): Promise<void> {
    this.#failures += 1;
    const error = errorOf(failure, this.#summary(headers));
    const refused = failure.reason === "UNAUTHENTICATED_CALLER" && this.#failures === 1;
    if (refused && this.#channel.credentials.refused(headers)) return;
    if (!failure.retryable && failure.reason !== "EXPORT_STALLED") throw error;
    const delay = pauseAfter(failure, fullJitter(this.#failures, this.#channel.retry));
    if (performance.now() + delay >= this.#giveUpAt || this.#failures >= this.#channel.retry.maxAttempts) throw error;
    this.#channel.retrying(error, delay);
    await sleep(delay, this.#signal).catch(() => undefined);
  }

  #summary(headers: Headers | undefined): CallSummary {
    const xRequestId = headers?.get(X_REQUEST_ID) ?? "";
    return { outcome: "not_written", method: this.#method.name, xRequestId, attempts: this.#failures };
  }

  #cancelled(): Cancelled {
    return cancelled(this.#signal.reason, this.#summary(this.#stream?.headers));
  }
}

function isSame(first: Timestamp | undefined, second: Timestamp | undefined): boolean {
  return first?.seconds === second?.seconds && first?.nanos === second?.nanos;
}
