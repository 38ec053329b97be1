import assert from "node:assert/strict";
import { test } from "node:test";
import { Code, ConnectError } from "@connectrpc/connect";
import { ErrorReasonSchema } from "../src/common.js";
import { errorOf, failureOf } from "../src/failures.js";
import { ErrorInfoSchema, RetryInfoSchema } from "../src/gen/google/rpc/error_details_pb.js";
import {
  ClientTimeout,
  CommerceError,
  Overloaded,
  ResourceExhausted,
  Unavailable,
  Unimplemented,
} from "../src/index.js";
import { CLASS_OF_REASON } from "../src/reasons.js";

const PREFIX = "ERROR_REASON_";
const CALL = { outcome: "not_written", method: "GetUser", xRequestId: "", attempts: 1 } as const;

/** Return the error of a status as the service sends it. */
function served(code: Code, reason: string, metadata: Record<string, string> = {}, retrySeconds = 0n): ConnectError {
  const info = { desc: ErrorInfoSchema, value: { reason, domain: "commerce", metadata } };
  const retry = { desc: RetryInfoSchema, value: { retryDelay: { seconds: retrySeconds } } };
  const sent = new ConnectError("sorry", code, undefined, retrySeconds > 0n ? [info, retry] : [info]);
  // As it is received: with encoded details.
  return failureOfReceived(sent);
}

function failureOfReceived(sent: ConnectError): ConnectError {
  const received = new ConnectError(sent.rawMessage, sent.code);
  received.details = sent.details;
  return received;
}

test("each reason of the protos has a class that is named after it", () => {
  const reasons = ErrorReasonSchema.values
    .map(({ name }) => name.slice(PREFIX.length))
    .filter((name) => name !== "UNSPECIFIED");
  assert.deepEqual(Object.keys(CLASS_OF_REASON).sort(), reasons.sort());
  for (const [reason, kind] of Object.entries(CLASS_OF_REASON)) {
    const words = reason.toLowerCase().split("_");
    assert.equal(kind.name, words.map((word) => word.slice(0, 1).toUpperCase() + word.slice(1)).join(""));
  }
});

test("an unknown reason has the class of its code", () => {
  const error = errorOf(failureOf(served(Code.ResourceExhausted, "OUT_OF_PAPER")), CALL);
  assert(error instanceof ResourceExhausted);
  assert.equal(error.reason, "OUT_OF_PAPER");
});

test("errors name the entry in the log of the service", () => {
  const error = errorOf(failureOf(served(Code.Internal, "INTERNAL", { error_id: "e42" })), {
    ...CALL,
    xRequestId: "r1",
  });
  assert.equal(error.errorId, "e42");
  assert.equal(error.message, "INTERNAL: sorry [GetUser; nothing was written; error_id e42; x-request-id r1]");
});

test("errors of others have the class of their code, and an unknown outcome", () => {
  const failure = failureOf(new ConnectError("gone", Code.Unavailable));
  assert.deepEqual([failure.outcome, failure.retryable], ["unknown", true]);
  assert(errorOf(failure, CALL) instanceof Unavailable);
  assert(errorOf(failureOf(new ConnectError("late", Code.DeadlineExceeded)), CALL) instanceof ClientTimeout);
  const older = failureOf(new ConnectError("no such method", Code.Unimplemented));
  assert.equal(older.retryable, false);
  assert(errorOf(older, CALL) instanceof Unimplemented);
  const foreign = new ConnectError("no", Code.PermissionDenied, undefined, [
    { desc: ErrorInfoSchema, value: { reason: "BLOCKED", domain: "proxy.example.com" } },
  ]);
  assert.equal(failureOf(failureOfReceived(foreign)).reason, "");
});

test("only the reasons that pass are repeated, after the time that the service asks for", () => {
  const overloaded = failureOf(served(Code.ResourceExhausted, "OVERLOADED", {}, 2n));
  assert.deepEqual([overloaded.retryable, overloaded.retryAfterMs], [true, 2_000]);
  assert(errorOf(overloaded, CALL) instanceof Overloaded);
  assert.equal(failureOf(served(Code.Unknown, "OUTCOME_UNKNOWN")).retryable, true);
  assert.equal(failureOf(served(Code.ResourceExhausted, "SIGN_IN_LIMIT", {}, 2n)).retryable, false);
  assert.equal(failureOf(served(Code.DeadlineExceeded, "DEADLINE_EXCEEDED")).retryable, false);
  assert.equal(failureOf(served(Code.Internal, "INTERNAL", { error_id: "e" })).retryable, false);
});

test("push-back is obeyed, also if it forbids to repeat a call", () => {
  const pushedBack = (value: string, code = Code.Unavailable) =>
    failureOf(new ConnectError("", code, { "grpc-retry-pushback-ms": value }));
  assert.deepEqual([pushedBack("70").retryable, pushedBack("70").retryAfterMs], [true, 70]);
  assert.equal(pushedBack("70", Code.ResourceExhausted).retryable, true);
  for (const refusal of ["-1", "soon"]) {
    assert.deepEqual([pushedBack(refusal).retryable, pushedBack(refusal).retryAfterMs], [false, undefined]);
  }
});

test("anything that is thrown becomes an error of this client", () => {
  const error = errorOf(failureOf(new RangeError("too long")), CALL);
  assert(error instanceof CommerceError);
  assert.equal((error.cause as ConnectError).cause instanceof RangeError, true);
});
