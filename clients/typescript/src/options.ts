import type { Credentials } from "./credentials.js";
import type { CommerceError } from "./errors.js";
import type { RetryBudgetOptions, RetryPolicy } from "./retry_policy.js";

/** Options of one call; those of the client are the defaults. */
export interface CallOptions {
  /** How long the call may take in all, with its repetitions, in milliseconds. Default: 30 000. */
  readonly timeoutMs?: number | undefined;
  /** How long each attempt may take, in milliseconds. Default: 10 000. */
  readonly attemptTimeoutMs?: number | undefined;
  /** Ends the call, with `Cancelled`, or a stream. */
  readonly signal?: AbortSignal | undefined;
  /** Metadata to send. */
  readonly headers?: HeadersInit | undefined;
  /** The id of the user for whom the call is made. */
  readonly onBehalfOf?: string | undefined;
  /** `replica` allows a read to lag behind by what the service allows; `primary` forbids it. */
  readonly readPreference?: "primary" | "replica" | undefined;
  /** Gets the metadata of the response: its headers and trailers together. */
  readonly onMetadata?: ((metadata: Headers) => void) | undefined;
}

/** Options of a client. */
export interface ClientOptions
  extends Pick<CallOptions, "timeoutMs" | "attemptTimeoutMs" | "headers" | "onBehalfOf" | "readPreference"> {
  readonly credentials?: Credentials | undefined;
  /** How calls are repeated: `{ maxAttempts: 1 }` never repeats them. */
  readonly retry?:
    | (Partial<Omit<RetryPolicy, "budget">> & { readonly budget?: Partial<RetryBudgetOptions> })
    | undefined;
  /** Is told of each failed attempt that will be repeated, for example to log it. */
  readonly onRetry?: ((error: CommerceError, delayMs: number) => void) | undefined;
}

export const DEFAULT_TIMEOUT_MS = 30_000;
export const DEFAULT_ATTEMPT_TIMEOUT_MS = 10_000;
