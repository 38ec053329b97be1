/* What a failed attempt means: whether it wrote something, whether to repeat it and when, and the error to throw. */

import { Code, ConnectError } from "@connectrpc/connect";
import {
  Aborted,
  AlreadyExists,
  Cancelled,
  ClientTimeout,
  CommerceError,
  CredentialsError,
  type ErrorFields,
  FailedPrecondition,
  type FieldViolation,
  InvalidArgument,
  NotFound,
  type Outcome,
  OutOfRange,
  PermissionDenied,
  ResourceExhausted,
  Unauthenticated,
  Unavailable,
  Unimplemented,
  Unknown,
} from "./errors.js";
import {
  BadRequestSchema,
  ErrorInfoSchema,
  PreconditionFailureSchema,
  ResourceInfoSchema,
  RetryInfoSchema,
} from "./gen/google/rpc/error_details_pb.js";
import { CLASS_OF_REASON } from "./reasons.js";

/** `google.rpc.ErrorInfo.domain` of the errors that the service itself sends. */
const DOMAIN = "commerce";
/** The time that gRPC's own retries wait for (gRFC A6), in milliseconds; negative: do not repeat. */
const PUSH_BACK = "grpc-retry-pushback-ms";

/** Reasons without `RetryInfo` after which the same call can succeed. */
const RETRYABLE_REASONS = new Set(["OUTCOME_UNKNOWN", "SERVER_DRAINING"]);
/** Reasons with `RetryInfo` that says how long a person has to wait. */
const NOT_RETRYABLE_REASONS = new Set(["SIGN_IN_LIMIT"]);
/**
 * What the network, a proxy or a server that stops makes of a call. INTERNAL and UNKNOWN are what transports report for
 * a response that ends too early, ABORTED and CANCELLED for a connection that is closed under a call.
 */
const RETRYABLE_CODES = new Set([
  Code.Aborted,
  Code.Canceled,
  Code.DeadlineExceeded,
  Code.Internal,
  Code.Unavailable,
  Code.Unknown,
]);
/** Codes of errors that depend on what is stored. */
const CONCLUSIVE_CODES = new Set([Code.NotFound, Code.AlreadyExists, Code.FailedPrecondition]);
/** Node's codes for a connection that was never made. */
const NEVER_SENT = new Set(["ECONNREFUSED", "ENOTFOUND", "EAI_AGAIN"]);

const CLASS_OF_CODE: Partial<Record<Code, new (fields: ErrorFields) => CommerceError>> = {
  [Code.InvalidArgument]: InvalidArgument,
  [Code.NotFound]: NotFound,
  [Code.AlreadyExists]: AlreadyExists,
  [Code.FailedPrecondition]: FailedPrecondition,
  [Code.Unauthenticated]: Unauthenticated,
  [Code.PermissionDenied]: PermissionDenied,
  [Code.Aborted]: Aborted,
  [Code.OutOfRange]: OutOfRange,
  [Code.ResourceExhausted]: ResourceExhausted,
  [Code.Unavailable]: Unavailable,
  [Code.DeadlineExceeded]: ClientTimeout,
  [Code.Unimplemented]: Unimplemented,
  [Code.Unknown]: Unknown,
  // A server that stops ends calls with it. A call that the caller has cancelled ends with `Cancelled`.
  [Code.Canceled]: Unavailable,
};

/** A failed attempt. */
export interface Failure {
  readonly code: Code;
  readonly reason: string;
  readonly description: string;
  /** Whether the attempt may have written something, if the method writes. */
  readonly outcome: Outcome;
  /** Whether the same request can succeed later. */
  readonly retryable: boolean;
  readonly retryAfterMs: number | undefined;
  readonly metadata: Readonly<Record<string, string>>;
  readonly violations: readonly FieldViolation[];
  readonly details: Pick<ErrorFields, "resource" | "subject">;
  readonly headers: Headers;
  readonly cause: unknown;
}

/** What is known of a call besides how its last attempt failed. */
export interface CallSummary {
  readonly outcome: Outcome;
  readonly method: string;
  readonly xRequestId: string;
  readonly attempts: number;
}

/** Read what a transport has thrown. */
export function failureOf(thrown: unknown): Failure {
  const error = ConnectError.from(thrown);
  const info = error.findDetails(ErrorInfoSchema).find((found) => found.domain === DOMAIN);
  const retryAfterMs = waitOf(error);
  return {
    code: error.code,
    reason: info?.reason ?? "",
    description: error.rawMessage,
    outcome: outcomeOf(error, info?.reason),
    retryable: isRetryable(error, info?.reason, retryAfterMs),
    retryAfterMs: retryAfterMs !== undefined && retryAfterMs >= 0 ? retryAfterMs : undefined,
    metadata: { ...info?.metadata },
    violations: error
      .findDetails(BadRequestSchema)
      .flatMap((found) =>
        found.fieldViolations.map(({ field, description, reason }) => ({ field, description, reason })),
      ),
    details: {
      resource: error
        .findDetails(ResourceInfoSchema)
        .map((found) => ({ type: found.resourceType, name: found.resourceName }))[0],
      subject: error.findDetails(PreconditionFailureSchema)[0]?.violations[0]?.subject,
    },
    headers: error.metadata,
    cause: error,
  };
}

function outcomeOf(error: ConnectError, reason: string | undefined): Outcome {
  if (reason !== undefined) return reason === "OUTCOME_UNKNOWN" ? "unknown" : "not_written";
  for (let cause: unknown = error; cause instanceof Error; cause = cause.cause) {
    if ("code" in cause && NEVER_SENT.has(String(cause.code))) return "not_written";
  }
  return "unknown";
}

function isRetryable(error: ConnectError, reason: string | undefined, retryAfterMs: number | undefined): boolean {
  if (retryAfterMs !== undefined && retryAfterMs < 0) return false;
  if (reason === undefined) return retryAfterMs !== undefined || RETRYABLE_CODES.has(error.code);
  if (NOT_RETRYABLE_REASONS.has(reason)) return false;
  return retryAfterMs !== undefined || RETRYABLE_REASONS.has(reason);
}

/** Return how long the server asks to wait, at most what both ways of saying it say; negative: do not repeat. */
function waitOf(error: ConnectError): number | undefined {
  const waits: number[] = [];
  const delay = error.findDetails(RetryInfoSchema)[0]?.retryDelay;
  if (delay !== undefined) waits.push(Number(delay.seconds) * 1000 + delay.nanos / 1e6);
  const pushBack = error.metadata.get(PUSH_BACK);
  if (pushBack !== null) {
    // Anything but a number also means not to repeat (gRFC A6).
    const milliseconds = /^\d{1,9}$/.test(pushBack) ? Number(pushBack) : -1;
    if (milliseconds < 0) return -1;
    waits.push(milliseconds);
  }
  return waits.length > 0 ? Math.max(...waits) : undefined;
}

/**
 * Whether a mutation returns this error only after it has looked for the response of an earlier attempt, which has
 * written nothing then.
 */
export function isConclusive({ code, reason }: Failure): boolean {
  return reason === "ETAG_MISMATCH" || (reason !== "" && CONCLUSIVE_CODES.has(code));
}

/**
 * Return how long to pause before a repetition, in milliseconds. The push-back of an overloaded server is different for
 * each call already. Other times are the same for all callers, which would come back together.
 */
export function pauseAfter(failure: Failure, jitter: number): number {
  if (failure.retryAfterMs === undefined) return jitter;
  return failure.reason === "OVERLOADED" ? failure.retryAfterMs : failure.retryAfterMs + jitter;
}

/** Return the error to throw for a call whose last attempt failed in this way. */
export function errorOf(failure: Failure, call: CallSummary): CommerceError {
  const kind = CLASS_OF_REASON[failure.reason] ?? CLASS_OF_CODE[failure.code] ?? CommerceError;
  return new kind({
    code: failure.code,
    reason: failure.reason,
    description: failure.description,
    metadata: failure.metadata,
    violations: failure.violations,
    resource: failure.details.resource,
    subject: failure.details.subject,
    retryAfterMs: failure.retryAfterMs,
    cause: failure.cause,
    ...call,
  });
}

/** Return the error of a call that its caller has cancelled. */
export function cancelled(reason: unknown, call: CallSummary): Cancelled {
  return new Cancelled(endedHere(Code.Canceled, "the call was cancelled", reason, call));
}

/** Return the error of a call whose time is over without an answer. */
export function timedOut(timeoutMs: number, cause: unknown, call: CallSummary): ClientTimeout {
  return new ClientTimeout(endedHere(Code.DeadlineExceeded, `no answer within ${timeoutMs} ms`, cause, call));
}

/** Return the error of a call for which there is no token. */
export function noToken(cause: unknown, call: CallSummary): CredentialsError {
  const description = "the function that returns the token failed";
  return new CredentialsError(endedHere(Code.Unauthenticated, description, cause, call));
}

function endedHere(code: Code, description: string, cause: unknown, call: CallSummary): ErrorFields {
  const none = { resource: undefined, subject: undefined, retryAfterMs: undefined };
  return { code, reason: "", description, metadata: {}, violations: [], cause, ...none, ...call };
}
