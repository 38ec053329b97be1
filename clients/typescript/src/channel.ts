import type { Transport } from "@connectrpc/connect";
import { CredentialHeaders } from "./credentials.js";
import type { CommerceError } from "./errors.js";
import { type CallOptions, type ClientOptions, DEFAULT_ATTEMPT_TIMEOUT_MS, DEFAULT_TIMEOUT_MS } from "./options.js";
import { randomUuid } from "./request_ids.js";
import { DEFAULT_RETRY_POLICY, RetryBudget, type RetryPolicy } from "./retry_policy.js";
import { LinkedSignal } from "./waiting.js";

export const X_REQUEST_ID = "x-request-id";

/** What all calls of a client share. */
export class Channel {
  readonly transport: Transport;
  readonly credentials: CredentialHeaders;
  readonly retry: RetryPolicy;
  readonly budget: RetryBudget;
  readonly #options: ClientOptions;
  // A set instead of a signal of the client: a signal warns of more than ten listeners, and there is one for each call.
  readonly #running = new Set<LinkedSignal>();
  #closed = false;

  constructor(transport: Transport, options: ClientOptions) {
    const { budget, ...policy } = options.retry ?? {};
    this.transport = transport;
    this.credentials = new CredentialHeaders(options.credentials);
    this.retry = {
      ...DEFAULT_RETRY_POLICY,
      ...policy,
      budget: { ...DEFAULT_RETRY_POLICY.budget, ...budget },
    };
    this.budget = new RetryBudget(this.retry.budget);
    this.#options = options;
  }

  /** Return how long a call may take in all, and each attempt, in milliseconds. */
  timeouts(options: CallOptions): { totalMs: number; attemptMs: number } {
    const totalMs = options.timeoutMs ?? this.#options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
    const attemptMs = options.attemptTimeoutMs ?? this.#options.attemptTimeoutMs ?? DEFAULT_ATTEMPT_TIMEOUT_MS;
    if (!(totalMs > 0 && attemptMs > 0)) throw new RangeError("timeoutMs and attemptTimeoutMs must be above 0");
    return { totalMs, attemptMs };
  }

  /** Return the metadata of a call, without its credentials. It has an `x-request-id`, made here if nowhere else. */
  headers(options: CallOptions, reads: boolean): Headers {
    const headers = new Headers(this.#options.headers);
    new Headers(options.headers).forEach((value, name) => {
      headers.set(name, value);
    });
    const onBehalfOf = options.onBehalfOf ?? this.#options.onBehalfOf;
    if (onBehalfOf !== undefined) headers.set("x-on-behalf-of", onBehalfOf);
    const readPreference = options.readPreference ?? this.#options.readPreference;
    if (reads && readPreference !== undefined) headers.set("x-read-preference", readPreference);
    if (!headers.has(X_REQUEST_ID)) headers.set(X_REQUEST_ID, randomUuid());
    return headers;
  }

  /** Return the signal of a call, which aborts with those of its caller, and when the client is closed. */
  begin(...signals: readonly (AbortSignal | undefined)[]): LinkedSignal {
    const linked = new LinkedSignal(...signals);
    this.#running.add(linked);
    if (this.#closed) linked.abort(closed());
    return linked;
  }

  /** Say that the call with this signal has ended. */
  end(linked: LinkedSignal): void {
    this.#running.delete(linked);
    linked.unlink();
  }

  /** End all calls. */
  close(): void {
    this.#closed = true;
    for (const linked of this.#running) linked.abort(closed());
  }

  retrying(error: CommerceError, delayMs: number): void {
    this.#options.onRetry?.(error, delayMs);
  }
}

function closed(): Error {
  return new Error("the client was closed");
}
