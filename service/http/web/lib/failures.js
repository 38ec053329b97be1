/** Failed calls, in words. */

import { loadSchema } from "./schema.js";

const CODES = [
  "OK",
  "CANCELLED",
  "UNKNOWN",
  "INVALID_ARGUMENT",
  "DEADLINE_EXCEEDED",
  "NOT_FOUND",
  "ALREADY_EXISTS",
  "PERMISSION_DENIED",
  "RESOURCE_EXHAUSTED",
  "FAILED_PRECONDITION",
  "ABORTED",
  "OUT_OF_RANGE",
  "UNIMPLEMENTED",
  "INTERNAL",
  "UNAVAILABLE",
  "DATA_LOSS",
  "UNAUTHENTICATED",
];

const OUTCOMES = {
  read: "The method changes nothing.",
  not_written: "Nothing was written.",
  unknown: "It is not known whether something was written. Repeat the call with the same request id to learn it.",
};

/**
 * A failed call.
 *
 * - `code`: the name of its gRPC code, such as `NOT_FOUND`.
 * - `message`: what is wrong, as the service says it.
 * - `reason`: such as `USER_NOT_FOUND`; empty if the service did not give one.
 * - `explanation`: what the reason means and what to do; empty for a reason that this release does not know.
 * - `metadata`: the variable parts of the reason, as an object of strings.
 * - `violations`: `[{field, description}]`, the fields that are wrong; paths are as in protos: `order.items[0].name`.
 * - `preconditions`: `[{type, subject, description}]`, what the state does not allow.
 * - `retryAfterMs`: when to repeat the call, or null if it does not help by itself.
 * - `requestId`: the `x-request-id`, by which the log of the server can be searched.
 * - `errorId`: of an internal error; empty otherwise.
 * - `outcome`: `read`, `not_written` or `unknown`; `outcomeText`: the same in a sentence.
 * - `details`: all details of the status as JSON; `status`: the whole status.
 */
export class CallError extends Error {
  constructor(status, { ms = 0, requestId = "", method, reasons = {}, isService = true } = {}) {
    super(status.message || "The call failed without a message.");
    this.name = "CallError";
    this.status = status;
    this.code = typeof status.code === "number" ? (CODES[status.code] ?? String(status.code)) : status.code;
    this.details = status.details ?? [];
    this.ms = ms;
    this.requestId = requestId;
    const info = this.detail("ErrorInfo");
    this.reason = info?.reason ?? "";
    this.metadata = info?.metadata ?? {};
    this.errorId = this.metadata.error_id ?? "";
    this.explanation = Object.hasOwn(reasons, this.reason) ? reasons[this.reason].doc : "";
    this.violations = (this.detail("BadRequest")?.fieldViolations ?? []).map(({ field = "", description = "" }) => ({
      field,
      description,
    }));
    this.preconditions = this.detail("PreconditionFailure")?.violations ?? [];
    this.retryAfterMs = milliseconds(this.detail("RetryInfo")?.retryDelay);
    this.outcome = outcome(this, method, isService);
  }

  get outcomeText() {
    return OUTCOMES[this.outcome];
  }

  /** Return a detail of the status by the short name of its type, or undefined. */
  detail(name) {
    return this.details.find((detail) => detail["@type"]?.endsWith(`google.rpc.${name}`));
  }
}

function outcome(error, method, isService) {
  if (method?.reads) {
    return "read";
  }
  // As docs/errors.md says: with any other reason, nothing was written; without one, nobody knows.
  const isKnown = isService && error.reason && error.reason !== "OUTCOME_UNKNOWN";
  return isKnown ? "not_written" : "unknown";
}

function milliseconds(duration) {
  const found = /^(\d+(?:\.\d+)?)s$/.exec(duration ?? "");
  return found ? Math.ceil(Number(found[1]) * 1000) : null;
}

/** Return whether a violation is about a field or something inside it. */
export function concerns(violation, path) {
  return violation.field === path || violation.field.startsWith(`${path}.`) || violation.field.startsWith(`${path}[`);
}

/** Return what is known of a method, and the reasons of errors: nothing if the server is gone before it was asked. */
async function known(method) {
  try {
    const schema = await loadSchema();
    return { method: schema.method(method), reasons: schema.reasons };
  } catch {
    return {};
  }
}

/** Return the failure of a call with a `google.rpc.Status` as JSON. */
export async function fromStatus(method, status, info) {
  return new CallError(status, { ...info, ...(await known(method)) });
}

/** Return the failure of a call that something between the service and this page, such as a proxy, has answered. */
export async function fromElsewhere(method, response, info) {
  const message = `HTTP ${response.status} ${response.statusText}`.trim();
  return new CallError(
    { code: "UNKNOWN", message, details: [] },
    { ...info, ...(await known(method)), isService: false },
  );
}

/** Return the failure of a call that did not reach the server. */
export async function unreachable(method, error) {
  const message = navigator.onLine === false ? "This device is offline." : "The server cannot be reached.";
  const failed = new CallError(
    { code: "UNAVAILABLE", message, details: [] },
    { ...(await known(method)), isService: false },
  );
  failed.cause = error;
  return failed;
}

/** Return the failure of a call whose response was cut. */
export async function cutOff(method, info) {
  return new CallError(
    { code: "UNAVAILABLE", message: "The connection broke before the response was complete.", details: [] },
    { ...info, ...(await known(method)), isService: false },
  );
}
