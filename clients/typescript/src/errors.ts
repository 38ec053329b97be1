import { Code } from "@connectrpc/connect";

/**
 * Whether a failed mutation has written something.
 *
 * - `not_written`: nothing; calls that only read have no other outcome.
 * - `written`: ImportUsers failed after it had written some of its rows.
 * - `unknown`: the answer was lost. Repeat the call with the same `requestId` to learn the outcome.
 */
export type Outcome = "not_written" | "written" | "unknown";

/** A field of a request that is invalid. */
export interface FieldViolation {
  /** Path of the field in the request, for example `order.items[2].quantity`. */
  readonly field: string;
  readonly description: string;
  /** The violated rule, for example `int32.gte`, or the reason of the error. */
  readonly reason: string;
}

/** A resource that an error is about. */
export interface ErrorResource {
  /** Full name of the message, for example `commerce.orders.v1.Order`. */
  readonly type: string;
  /** The id or other key; for several missing resources, all of them. May be empty. */
  readonly name: string;
}

/** What an error consists of. */
export interface ErrorFields {
  readonly code: Code;
  /** A name of `commerce.common.v1.ErrorReason` without its prefix; empty if the service did not send the error. */
  readonly reason: string;
  readonly description: string;
  readonly outcome: Outcome;
  readonly metadata: Readonly<Record<string, string>>;
  readonly violations: readonly FieldViolation[];
  readonly resource: ErrorResource | undefined;
  readonly subject: string | undefined;
  readonly retryAfterMs: number | undefined;
  /** The method, for example `CreateOrder`. */
  readonly method: string;
  /** The `x-request-id` of the call. */
  readonly xRequestId: string;
  readonly attempts: number;
  readonly cause: unknown;
}

/**
 * Base of all errors of this client. `instanceof` one of its subclasses tells them apart:
 *
 * - a class for each reason of the service, such as `InsufficientCredit`, below a class for each status code;
 * - `ClientTimeout`, `Cancelled` and `CredentialsError`, which end a call without an answer of the service;
 * - the class of the code, such as `Unavailable`, for what a proxy or the network reports.
 */
export class CommerceError extends Error {
  /** The status code. */
  readonly code: Code;
  /** A name of `commerce.common.v1.ErrorReason` without its prefix; empty if the service did not send the error. */
  readonly reason: string;
  /** The text of the service, without what `message` adds to it. */
  readonly description: string;
  /** Whether something was written, by any of the attempts. */
  readonly outcome: Outcome;
  /** The variable parts of the error, by name. */
  readonly metadata: Readonly<Record<string, string>>;
  /** How long the service asks to wait before the call is repeated. */
  readonly retryAfterMs: number | undefined;
  /** The `x-request-id` of the call, by which the service's log has it. */
  readonly xRequestId: string;
  /** Identifies the entry in the service's log, for errors with the reason `INTERNAL`. */
  readonly errorId: string | undefined;
  /** How often the call was sent. */
  readonly attempts: number;

  constructor(fields: ErrorFields) {
    super(describe(fields), { cause: fields.cause });
    this.name = new.target.name;
    this.code = fields.code;
    this.reason = fields.reason;
    this.description = fields.description;
    this.outcome = fields.outcome;
    this.metadata = fields.metadata;
    this.retryAfterMs = fields.retryAfterMs;
    this.xRequestId = fields.xRequestId;
    this.errorId = fields.metadata["error_id"];
    this.attempts = fields.attempts;
  }
}

const OUTCOMES = {
  not_written: "nothing was written",
  written: "a part was written",
  unknown: "the write may have happened",
} as const;

function describe(fields: ErrorFields): string {
  const facts = [fields.method, OUTCOMES[fields.outcome]];
  if (fields.attempts > 1) facts.push(`${fields.attempts} attempts`);
  const errorId = fields.metadata["error_id"];
  if (errorId !== undefined) facts.push(`error_id ${errorId}`);
  if (fields.xRequestId !== "") facts.push(`x-request-id ${fields.xRequestId}`);
  return `${fields.reason || codeName(fields.code)}: ${fields.description} [${facts.join("; ")}]`;
}

/** Return the name of a code as gRPC writes it: `NOT_FOUND`. */
function codeName(code: Code): string {
  const name = Code[code] ?? `code ${code}`;
  return name === "Canceled" ? "CANCELLED" : name.replace(/(?<=[a-z])(?=[A-Z])/g, "_").toUpperCase();
}

/** INVALID_ARGUMENT: the request is wrong, regardless of the stored data. */
export class InvalidArgument extends CommerceError {
  /** The first invalid fields. */
  readonly violations: readonly FieldViolation[];

  constructor(fields: ErrorFields) {
    super(fields);
    this.violations = fields.violations;
  }
}

/** NOT_FOUND: a resource does not exist. */
export class NotFound extends CommerceError {
  /** The missing resource. */
  readonly resource: ErrorResource | undefined;

  constructor(fields: ErrorFields) {
    super(fields);
    this.resource = fields.resource;
  }
}

/** ALREADY_EXISTS: another resource has a value that must be unique. */
export class AlreadyExists extends CommerceError {
  /** The field with the value, for example `email`. */
  readonly field: string | undefined;

  constructor(fields: ErrorFields) {
    super(fields);
    this.field = fields.metadata["field"];
  }
}

/** FAILED_PRECONDITION: the state of a resource does not allow the call. */
export class FailedPrecondition extends CommerceError {
  /** The resource, for example `orders/<id>`. */
  readonly subject: string | undefined;

  constructor(fields: ErrorFields) {
    super(fields);
    this.subject = fields.subject;
  }
}

/** UNAUTHENTICATED: a credential is missing or not valid. */
export class Unauthenticated extends CommerceError {}

/** PERMISSION_DENIED: the caller may not do this. */
export class PermissionDenied extends CommerceError {}

/** ABORTED: other calls interfered. */
export class Aborted extends CommerceError {}

/** OUT_OF_RANGE: a watch starts where there is nothing any more. */
export class OutOfRange extends CommerceError {}

/** RESOURCE_EXHAUSTED: a limit is reached. */
export class ResourceExhausted extends CommerceError {}

/** UNAVAILABLE: the service, or what it needs, cannot be reached. */
export class Unavailable extends CommerceError {}

/** UNKNOWN: what happened is not known. */
export class Unknown extends CommerceError {}

/** UNIMPLEMENTED: the server does not have the method; it is older than this client, or another service. */
export class Unimplemented extends CommerceError {}

/**
 * This client stopped waiting, because the time of the call was over. `cause` is the failure of the last attempt.
 * `DeadlineExceeded`, by contrast, is an answer of the service: it stopped, and wrote nothing.
 */
export class ClientTimeout extends CommerceError {}

/** The `signal` of the call, or `close()` of the client, ended it; `cause` is the reason of the signal. */
export class Cancelled extends CommerceError {}

/** The function that returns the client's token failed; `cause` is its error. Nothing was sent. */
export class CredentialsError extends CommerceError {}
