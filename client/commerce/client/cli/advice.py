"""What to do about an error, and the exit code that it gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpc import StatusCode

from commerce.client.failures import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping

    from commerce.client import CommerceError

ADVICE: Mapping[str, str] = {
    "MALFORMED_REQUEST": "Check that all texts are valid UTF-8.",
    "INVALID_FIELD": "Correct the fields named above.",
    "INVALID_UPDATE_MASK": "Name only fields that can be changed; the command's --help lists them.",
    "INVALID_PAGE_TOKEN": "Read the list again from its first page.",
    "REQUEST_ID_REUSED": "Use a new --request-id for a new request, or repeat exactly the earlier one.",
    "UNKNOWN_CURRENCY": "Use a currency code of ISO 4217, such as EUR.",
    "MIXED_CURRENCIES": "Place one order for each currency.",
    "TOO_MANY_DECIMALS": "Round the amount to the decimals of its currency.",
    "AMOUNT_OUT_OF_RANGE": "Use an amount that is not negative, and smaller.",
    "INVALID_CURSOR": "Watch without the cursor, from now or from the earliest event.",
    "USER_NOT_FOUND": "Look for the user: commercectl users search WORDS",
    "ORDER_NOT_FOUND": "Look for the order: commercectl orders list --user USER",
    "NOTE_NOT_FOUND": "Look for the note: commercectl notes list --order ORDER",
    "USER_ALREADY_EXISTS": "Choose another value, or find the user who has it: commercectl users get VALUE",
    "ORDER_ALREADY_EXISTS": "Choose another external reference, or use the order that has this one.",
    "ETAG_MISMATCH": "Read the resource again, decide again, and repeat with its new etag.",
    "ILLEGAL_TRANSITION": "Bring it to a state that allows this first.",
    "USER_NOT_ACTIVE": "Reactivate the user first: commercectl users reactivate USER",
    "USER_DELETED": "Undelete the user first: commercectl users undelete USER",
    "ORDER_NOT_PENDING": "Only a PENDING order can be changed: cancel it and place another one.",
    "INVALID_CREDENTIALS": "Check the login and the password, and that the user is ACTIVE.",
    "INSUFFICIENT_CREDIT": "Grant credit first: commercectl credit grant USER AMOUNT",
    "USER_IN_USE": "Settle the user's orders and credit first, or erase them too with --force.",
    "UNAUTHENTICATED_CALLER": "Give a valid credential: commercectl context add --help",
    "PERMISSION_MISSING": "Ask who runs the service for the permission.",
    "CURSOR_EXPIRED": "Read the resources themselves, and watch again from the earliest event.",
    "OVERLOADED": "Repeat the command later.",
    "RESPONSE_TOO_LARGE": "Ask for less: fewer ids, or a shorter time.",
    "CONTENTION": "Repeat the command.",
    "DATABASE_UNAVAILABLE": "Repeat the command later; commercectl health shows whether the service is ready.",
    "DEADLINE_EXCEEDED": "Repeat the command with a longer --timeout.",
    "OUTCOME_UNKNOWN": "Repeat the command with the same --request-id, or read what it changed.",
    "INTERNAL": "Report it to who runs the service, with the error_id.",
    "SIGN_IN_LIMIT": "Wait as long as the error says, and try once more.",
    "EXPORT_STALLED": "Export to a faster disk or a faster reader.",
    "SLOW_CONSUMER": "Watch again from the cursor of the error, with fewer events or a faster reader.",
    "SERVER_DRAINING": "Watch again from the cursor of the error.",
    "ISSUER_UNAVAILABLE": "Repeat the command later.",
}
"""By the reason of the service; a test checks that each has one."""

_BY_CODE: Mapping[StatusCode, str] = {
    StatusCode.UNAVAILABLE: "Check the address and whether the service runs: commercectl health",
    StatusCode.DEADLINE_EXCEEDED: "Check that the service answers (commercectl health), or give a longer --timeout.",
    StatusCode.UNIMPLEMENTED: "The server is older than this command, or another service: check the address.",
    StatusCode.UNAUTHENTICATED: "Give a valid credential: commercectl context add --help",
}

INVALID, NOT_FOUND, REFUSED, DENIED, UNAVAILABLE, OUTCOME_UNKNOWN, INCOMPLETE = range(3, 10)
EXIT_CODES: Mapping[int, str] = {
    0: "done",
    1: "failed in another way, such as a file that cannot be written",
    2: "the command line is wrong; nothing was sent",
    INVALID: "the request is wrong",
    NOT_FOUND: "what it names does not exist",
    REFUSED: "the state of the service does not allow it",
    DENIED: "the credential is missing or wrong, or a permission is missing",
    UNAVAILABLE: "the service cannot be reached, is overloaded or did not answer in time; nothing was written",
    OUTCOME_UNKNOWN: "it is not known whether something was written",
    INCOMPLETE: "an import stopped early or has rejected rows; the others are imported",
    129: "ended because its terminal was closed (SIGHUP)",
    130: "interrupted, or a question was answered with no",
    143: "ended by SIGTERM",
}
"""What each exit code means."""

_CODES: Mapping[StatusCode, int] = {
    StatusCode.INVALID_ARGUMENT: INVALID,
    StatusCode.OUT_OF_RANGE: INVALID,
    StatusCode.NOT_FOUND: NOT_FOUND,
    StatusCode.ALREADY_EXISTS: REFUSED,
    StatusCode.FAILED_PRECONDITION: REFUSED,
    StatusCode.ABORTED: REFUSED,
    StatusCode.UNAUTHENTICATED: DENIED,
    StatusCode.PERMISSION_DENIED: DENIED,
    StatusCode.UNAVAILABLE: UNAVAILABLE,
    StatusCode.RESOURCE_EXHAUSTED: UNAVAILABLE,
    StatusCode.DEADLINE_EXCEEDED: UNAVAILABLE,
}


def advice_for(error: CommerceError) -> str:
    """Return what to do about an error; empty if there is nothing to say."""
    if error.reason in ADVICE:
        return ADVICE[error.reason]
    if error.outcome == Outcome.UNKNOWN and error.last_committed_row is not None:
        return "Repeat the import: rows that it has imported are not imported twice, except with --on-conflict fail."
    if error.outcome == Outcome.UNKNOWN and error.code not in _BY_CODE:
        return ADVICE["OUTCOME_UNKNOWN"]
    return _BY_CODE.get(error.code, "")


def exit_code(error: CommerceError) -> int:
    """Return the exit code of a command that failed with this error."""
    if error.outcome == Outcome.WRITTEN:
        return INCOMPLETE
    if error.outcome == Outcome.UNKNOWN:
        return OUTCOME_UNKNOWN
    return _CODES.get(error.code, 1)
