/* A class for each reason of commerce.common.v1.ErrorReason, named after it. A test compares them. */

import {
  Aborted,
  AlreadyExists,
  CommerceError,
  type ErrorFields,
  FailedPrecondition,
  InvalidArgument,
  NotFound,
  OutOfRange,
  PermissionDenied,
  ResourceExhausted,
  Unauthenticated,
  Unavailable,
  Unknown,
} from "./errors.js";

/** The service cannot parse the request. */
export class MalformedRequest extends InvalidArgument {}
/** Fields of the request violate their rules; `violations` names the first of them. */
export class InvalidField extends InvalidArgument {}
/** `updateMask` has a field that does not exist or that callers cannot set. */
export class InvalidUpdateMask extends InvalidArgument {}
/** `pageToken` is damaged, or belongs to a request with other arguments. */
export class InvalidPageToken extends InvalidArgument {}
/** `requestId` was already used for the same method with another request. */
export class RequestIdReused extends InvalidArgument {}
/** The currency code is not an ISO 4217 currency with a minor unit. */
export class UnknownCurrency extends InvalidArgument {}
/** The items of an order have different currencies. */
export class MixedCurrencies extends InvalidArgument {}
/** An amount has more decimal places than its currency allows. */
export class TooManyDecimals extends InvalidArgument {}
/** An amount, or a sum of amounts, is negative or too large to be stored. */
export class AmountOutOfRange extends InvalidArgument {}
/** The cursor of a watch is damaged, or belongs to another service. */
export class InvalidCursor extends InvalidArgument {}

/** No user has this id, email address or username. */
export class UserNotFound extends NotFound {}
/** No order has this id or order number. */
export class OrderNotFound extends NotFound {}
/** No order note has this id. */
export class NoteNotFound extends NotFound {}

/** The email address or username (`field`) belongs to another user, possibly a deleted one. */
export class UserAlreadyExists extends AlreadyExists {}
/** The user has another order with this `externalRef` that is not cancelled. */
export class OrderAlreadyExists extends AlreadyExists {}

/** The resource has changed since its `etag` was read: read it again, and decide again. */
export class EtagMismatch extends Aborted {}
/** Other calls kept changing the same data. */
export class Contention extends Aborted {}
/** An export was read too slowly. */
export class ExportStalled extends Aborted {}

/** The state of a resource does not allow this transition. */
export class IllegalTransition extends FailedPrecondition {
  /** The state of the resource, for example `PENDING`. */
  readonly state: string;
  /** The states that it can move to. Empty in a final state. */
  readonly allowed: readonly string[];

  constructor(fields: ErrorFields) {
    super(fields);
    this.state = fields.metadata["state"] ?? "";
    this.allowed = (fields.metadata["allowed"] ?? "").split(", ").filter((state) => state !== "");
  }
}
/** The user is not ACTIVE and cannot place orders or write notes. */
export class UserNotActive extends FailedPrecondition {}
/** The user is deleted: undelete it before changing it. */
export class UserDeleted extends FailedPrecondition {}
/** The order is not PENDING, so it cannot be changed. */
export class OrderNotPending extends FailedPrecondition {}
/** The user's available credit is lower than the call requires. */
export class InsufficientCredit extends FailedPrecondition {}
/** The user has open orders or credit: set `force` to erase them too. */
export class UserInUse extends FailedPrecondition {}

/** No ACTIVE user has this login and password. */
export class InvalidCredentials extends Unauthenticated {}
/** The credential of the caller is missing, unknown or expired (`problem`). */
export class UnauthenticatedCaller extends Unauthenticated {
  /** `missing`, `unknown` or `expired`. */
  readonly problem: string;

  constructor(fields: ErrorFields) {
    super(fields);
    this.problem = fields.metadata["problem"] ?? "";
  }
}

/** The caller lacks a permission, perhaps for what the request names. */
export class PermissionMissing extends PermissionDenied {
  /** The missing permission, for example `orders.write`. */
  readonly permission: string;

  constructor(fields: ErrorFields) {
    super(fields);
    this.permission = fields.metadata["permission"] ?? "";
  }
}

/** The events after the cursor of a watch no longer exist: there is a gap, so read the resources again. */
export class CursorExpired extends OutOfRange {
  /** Where a watch can continue after the gap. */
  readonly earliestCursor: string;

  constructor(fields: ErrorFields) {
    super(fields);
    this.earliestCursor = fields.metadata["earliest_cursor"] ?? "";
  }
}

/** The service is overloaded. */
export class Overloaded extends ResourceExhausted {}
/** The response would be too large: request less. */
export class ResponseTooLarge extends ResourceExhausted {}
/** Too many attempts to sign in without success: tell the user to wait for `retryAfterMs`. */
export class SignInLimit extends ResourceExhausted {}
/** A watch was read more slowly than events occurred. */
export class SlowConsumer extends ResourceExhausted {}

/** The service cannot reach its database. */
export class DatabaseUnavailable extends Unavailable {}
/** The server of a watch is shutting down. */
export class ServerDraining extends Unavailable {}
/** The service cannot verify the caller's token yet. */
export class IssuerUnavailable extends Unavailable {}

/** The deadline passed before the service had finished; it rolled everything back. */
export class DeadlineExceeded extends CommerceError {}
/** The service lost its database while it committed: repeat the call with the same `requestId`. */
export class OutcomeUnknown extends Unknown {}
/** A bug in the service: report it with its `errorId`. */
export class Internal extends CommerceError {}

/** The class of each reason. */
export const CLASS_OF_REASON: Readonly<Record<string, new (fields: ErrorFields) => CommerceError>> = {
  MALFORMED_REQUEST: MalformedRequest,
  INVALID_FIELD: InvalidField,
  INVALID_UPDATE_MASK: InvalidUpdateMask,
  INVALID_PAGE_TOKEN: InvalidPageToken,
  REQUEST_ID_REUSED: RequestIdReused,
  UNKNOWN_CURRENCY: UnknownCurrency,
  MIXED_CURRENCIES: MixedCurrencies,
  TOO_MANY_DECIMALS: TooManyDecimals,
  AMOUNT_OUT_OF_RANGE: AmountOutOfRange,
  INVALID_CURSOR: InvalidCursor,
  USER_NOT_FOUND: UserNotFound,
  ORDER_NOT_FOUND: OrderNotFound,
  NOTE_NOT_FOUND: NoteNotFound,
  USER_ALREADY_EXISTS: UserAlreadyExists,
  ORDER_ALREADY_EXISTS: OrderAlreadyExists,
  ETAG_MISMATCH: EtagMismatch,
  CONTENTION: Contention,
  EXPORT_STALLED: ExportStalled,
  ILLEGAL_TRANSITION: IllegalTransition,
  USER_NOT_ACTIVE: UserNotActive,
  USER_DELETED: UserDeleted,
  ORDER_NOT_PENDING: OrderNotPending,
  INSUFFICIENT_CREDIT: InsufficientCredit,
  USER_IN_USE: UserInUse,
  INVALID_CREDENTIALS: InvalidCredentials,
  UNAUTHENTICATED_CALLER: UnauthenticatedCaller,
  PERMISSION_MISSING: PermissionMissing,
  CURSOR_EXPIRED: CursorExpired,
  OVERLOADED: Overloaded,
  RESPONSE_TOO_LARGE: ResponseTooLarge,
  SIGN_IN_LIMIT: SignInLimit,
  SLOW_CONSUMER: SlowConsumer,
  DATABASE_UNAVAILABLE: DatabaseUnavailable,
  SERVER_DRAINING: ServerDraining,
  ISSUER_UNAVAILABLE: IssuerUnavailable,
  DEADLINE_EXCEEDED: DeadlineExceeded,
  OUTCOME_UNKNOWN: OutcomeUnknown,
  INTERNAL: Internal,
};
