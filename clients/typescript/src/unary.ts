import {
  clone,
  create,
  type DescMessage,
  type DescMethodUnary,
  type MessageInitShape,
  type MessageShape,
} from "@bufbuild/protobuf";
import { MethodOptions_IdempotencyLevel } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import { type Channel, X_REQUEST_ID } from "./channel.js";
import type { CommerceError } from "./errors.js";
import {
  type CallSummary,
  cancelled,
  errorOf,
  type Failure,
  failureOf,
  isConclusive,
  pauseAfter,
  timedOut,
} from "./failures.js";
import type { CallOptions } from "./options.js";
import { randomUuid } from "./request_ids.js";
import { fullJitter } from "./retry_policy.js";
import { type LinkedSignal, sleep } from "./waiting.js";

/**
 * Make a call, and repeat it where that is safe: reads; mutations with a `requestId`, which is made here if the request
 * has none, and is that of all attempts; and calls of which the service says that they wrote nothing.
 *
 * gRPC's own retries would not do: they know neither `RetryInfo` nor when the time of a call is over, and browsers lack
 * them.
 */
export async function callUnary<I extends DescMessage, O extends DescMessage>(
  channel: Channel,
  method: DescMethodUnary<I, O>,
  init: MessageInitShape<I>,
  options: CallOptions = {},
): Promise<MessageShape<O>> {
  const call = new UnaryCall(channel, method, new Request(method, init), options);
  try {
    return await call.run();
  } finally {
    call.end();
  }
}

/** A request that does not change between attempts, even if the caller changes what it was made from. */
class Request<I extends DescMessage> {
  readonly message: MessageInitShape<I>;
  readonly reads: boolean;
  /** Whether a second attempt has no second effect. */
  readonly repeatable: boolean;
  /** Whether the call may write something. */
  readonly writes: boolean;

  constructor(method: DescMethodUnary<I, DescMessage>, init: MessageInitShape<I>) {
    const message = clone(method.input as DescMessage, create(method.input, init));
    const fields = message as { requestId?: string; validateOnly?: boolean };
    this.message = message as MessageInitShape<I>;
    this.reads = method.idempotency === MethodOptions_IdempotencyLevel.NO_SIDE_EFFECTS;
    this.writes = !this.reads && fields.validateOnly !== true;
    if (this.writes && fields.requestId === "") fields.requestId = randomUuid();
    this.repeatable = !this.writes || fields.requestId !== undefined;
  }
}

class UnaryCall<I extends DescMessage, O extends DescMessage> {
  readonly #channel: Channel;
  readonly #method: DescMethodUnary<I, O>;
  readonly #request: Request<I>;
  readonly #options: CallOptions;
  readonly #headers: Headers;
  readonly #linked: LinkedSignal;
  readonly #totalMs: number;
  readonly #attemptMs: number;
  readonly #deadline: number;
  #attempts = 0;
  /** Whether an attempt may have written something. */
  #unknown = false;
  #credentialsRefused = false;
  #lastFailure: unknown;

  constructor(channel: Channel, method: DescMethodUnary<I, O>, request: Request<I>, options: CallOptions) {
    this.#channel = channel;
    this.#method = method;
    this.#request = request;
    this.#options = options;
    this.#headers = channel.headers(options, request.reads);
    const { totalMs, attemptMs } = channel.timeouts(options);
    this.#totalMs = totalMs;
    this.#attemptMs = attemptMs;
    this.#deadline = performance.now() + totalMs;
    this.#linked = channel.begin(options.signal);
  }

  end(): void {
    this.#channel.end(this.#linked);
  }

  async run(): Promise<MessageShape<O>> {
    const signal = this.#linked.signal;
    for (;;) {
      if (signal.aborted) throw cancelled(signal.reason, this.#summary());
      const headers = new Headers(this.#headers);
      await this.#channel.credentials.addTo(headers, () => this.#summary());
      const left = this.#deadline - performance.now();
      if (left <= 0) throw timedOut(this.#totalMs, this.#lastFailure, this.#summary());
      this.#attempts += 1;
      try {
        return await this.#attempt(headers, Math.min(left, this.#attemptMs));
      } catch (thrown) {
        await this.#prepareRepetition(thrown, headers);
      }
    }
  }

  async #attempt(headers: Headers, limitMs: number): Promise<MessageShape<O>> {
    // In whole milliseconds, and not 0, which would mean no limit.
    const timeoutMs = Math.max(1, Math.round(limitMs));
    const { transport, budget } = this.#channel;
    const response = await transport.unary(
      this.#method,
      this.#linked.signal,
      timeoutMs,
      headers,
      this.#request.message,
    );
    budget.succeeded();
    if (this.#options.onMetadata !== undefined) {
      const metadata = new Headers(response.header);
      // Over HTTP, x-request-id is in both.
      response.trailer.forEach((value, name) => {
        metadata.set(name, value);
      });
      this.#options.onMetadata(metadata);
    }
    return response.message;
  }

  /** Wait until the call may be repeated; throws its error if it may not. */
  async #prepareRepetition(thrown: unknown, headers: Headers): Promise<void> {
    const failure = failureOf(thrown);
    const signal = this.#linked.signal;
    if (failure.outcome === "unknown" && this.#request.writes) this.#unknown = true;
    if (isConclusive(failure)) this.#unknown = false;
    if (signal.aborted) throw cancelled(signal.reason, this.#summary());
    if (this.#mayHaveNewCredentials(failure, headers)) return;
    const error = this.#error(failure);
    this.#lastFailure = error;
    const repeatable = this.#request.repeatable || failure.outcome === "not_written";
    const { retry, budget } = this.#channel;
    if (!repeatable || !failure.retryable || this.#attempts >= retry.maxAttempts) throw error;
    const delay = Math.max(pauseAfter(failure, fullJitter(this.#attempts, retry)), budget.wait());
    // If there is no time for another attempt, the caller learns so now.
    if (performance.now() + delay >= this.#deadline) throw error;
    budget.take();
    this.#channel.retrying(error, delay);
    try {
      await sleep(delay, signal);
    } catch (reason) {
      throw cancelled(reason, this.#summary());
    }
  }

  /** Whether the service has refused a token that another one can replace; it has done nothing then. */
  #mayHaveNewCredentials(failure: Failure, headers: Headers): boolean {
    if (failure.reason !== "UNAUTHENTICATED_CALLER" || this.#credentialsRefused) return false;
    this.#credentialsRefused = true;
    return this.#channel.credentials.refused(headers);
  }

  #error(failure: Failure): CommerceError {
    const noAnswer = failure.code === Code.DeadlineExceeded && failure.reason === "";
    if (noAnswer && performance.now() >= this.#deadline) {
      return timedOut(this.#totalMs, this.#lastFailure ?? failure.cause, this.#summary());
    }
    return errorOf(failure, this.#summary());
  }

  #summary(): CallSummary {
    return {
      outcome: this.#unknown ? "unknown" : "not_written",
      method: this.#method.name,
      xRequestId: this.#headers.get(X_REQUEST_ID) ?? "",
      attempts: this.#attempts,
    };
  }
}
