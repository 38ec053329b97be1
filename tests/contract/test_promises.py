"""Every number that a proto or a document promises is the one in the code, and a change of it fails here.

A number in the comment of a field must be in the field's rules, or in `PROMISES`. A promise is written down twice: in
words, as callers read it, and as the value that the code must have.
"""

import ast
import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any
from uuid import UUID

import pytest
from commerce.client.retries import RetryPolicy
from commerce.client.sync.orders import Orders
from commerce.client.sync.users import Users
from google.protobuf import text_format
from google.protobuf.descriptor_pool import Default

from service.application.ports.queries import MAX_RANKED, MAX_SUMS
from service.config import (
    DatabaseSettings,
    ExportSettings,
    GcSettings,
    LimitSettings,
    SignInSettings,
    WatchSettings,
    environment_name,
)
from service.db.connections.batching import _MAX_RUNNING, _STUCK_SECONDS
from service.db.connections.lost_connections import _LOG_PERIOD_SECONDS, _LONG_SECONDS, _SOCKET_OPTIONS
from service.db.connections.lost_connections import _PERIOD_SECONDS as _LOOK_SECONDS
from service.db.connections.replica import _ANSWER_SECONDS, _PERIOD_SECONDS
from service.db.events.feed import MAX_UNDELIVERED_EVENTS
from service.db.events.poller import BACKOFF as POLLER_BACKOFF
from service.db.events.poller import LAG_TO_LOG_SECONDS, RECENT_EVENTS
from service.db.events.relay_cursor import STANDBY_SECONDS
from service.db.operations.migrate import upgrade
from service.db.operations.retention import REQUEST_ID_RETENTION
from service.db.tables import ORDER_NUMBER_BLOCK, SIGN_IN_SLOTS
from service.db.writes.fast_path.group_commit import _MAX_BYTES
from service.db.writes.fast_path.order_statements import _LOCK_TIMEOUT
from service.db.writes.transaction import _share
from service.devtools.embedded_postgres import _START_SECONDS
from service.devtools.launcher import STOP_SECONDS
from service.devtools.settings_tables import KINDS
from service.domain.ids import SHARD_BITS, uuid7_beside
from service.domain.notes import MAX_BODY_LENGTH
from service.domain.orders import HOLD_FOR, MAX_ITEMS, MAX_QUANTITY
from service.domain.search import MAX_SNIPPET_LENGTH, MAX_WORDS, SEARCHED_FOR_SNIPPET
from service.domain.sign_in import forget_seconds, sign_in_delays
from service.domain.tags import MAX_LENGTH, MAX_TAGS
from service.domain.users import MAX_BIO_LENGTH, MAX_PASSWORD_LENGTH, MIN_PASSWORD_LENGTH, PURGE_AFTER
from service.relay import BACKOFF as RELAY_BACKOFF
from service.relay import TIMEOUT_SECONDS
from service.rpc.health import FAILURES_TO_STOP, PERIOD_SECONDS, SUCCESSES_TO_SERVE
from service.rpc.identity.denials import MAX_LINES
from service.rpc.identity.denials import PERIOD_SECONDS as DENIALS_PERIOD_SECONDS
from service.rpc.identity.identities import POLL_SECONDS as FILES_POLL_SECONDS
from service.rpc.identity.issuers import _DEFAULT_LEEWAY_SECONDS, ALGORITHMS, MAX_LEEWAY_SECONDS
from service.rpc.identity.jwks import _RSA_BITS, MAX_AGE_SECONDS, MIN_AGE_SECONDS, RETRY_SECONDS
from service.rpc.identity.jwks import _TIMEOUT_SECONDS as _FETCH_SECONDS
from service.rpc.identity.key_file import _SECRET_BYTES, MAX_VALID_KEYS
from service.rpc.identity.policy_file import POLL_SECONDS
from service.rpc.identity.refusals import LOG_PERIOD_SECONDS
from service.rpc.identity.tokens import MAX_TOKENS
from service.rpc.interceptors.authentication import RECHECK_SECONDS
from service.rpc.interceptors.deserialization import _SMALL_BYTES as _COUNTED_ABOVE_BYTES
from service.rpc.interceptors.transaction import _GRACE_SECONDS
from service.rpc.interceptors.unread_responses import MAX_PART
from service.rpc.interceptors.validation import MAX_STREAM_REQUEST_BYTES
from service.rpc.messages.statistics import DEFAULT_TOP_USERS
from service.rpc.messages.wire_sizes import MAX_FIELDS
from service.rpc.retry import BACKOFF, MAX_ATTEMPTS
from service.rpc.signing.device_tokens import VALIDITY
from service.rpc.signing.page_tokens import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE
from service.rpc.streams.exports import MIN_BYTES_PER_SECOND
from service.rpc.streams.imports import _MAX_WRITING, CHUNK_ROWS, MAX_FAILURES
from service.runtime.exit_deadline import EXIT_SECONDS
from service.runtime.retry import Backoff
from service.runtime.workers import _BACKOFF as WORKER_BACKOFF
from service.runtime.workers import _CRASH_LOOP, _MARGIN_SECONDS, _STABLE_SECONDS
from service.server import _WORK_SECONDS
from tests.support.paths import ROOT
from tests.support.protos import rules_of, sources


def _of_migrations(name: str) -> object:
    """Return a constant of `migrations/env.py`, which cannot be imported: it migrates."""
    found = re.search(rf"^{name} = (.*)$", (ROOT / "migrations" / "env.py").read_text(), re.MULTILINE)
    assert found
    value: object = ast.literal_eval(found[1])
    return value


@dataclass(frozen=True)
class Promise:
    """What a text says, the value that it means, and the value in the code."""

    words: str
    promised: object
    actual: object


PROTOS = "protos"
ARCHITECTURE = "docs/architecture.md"
DAYS, HOURS = timedelta(days=1), timedelta(hours=1)


def _default(method: Callable[..., object], argument: str) -> object:
    """Return the default of an argument of the Python client."""
    return inspect.signature(method).parameters[argument].default


_DRAIN_SECONDS = (
    EXIT_SECONDS,
    1.1 * LimitSettings.model_fields["max_connection_age"].default
    + LimitSettings.model_fields["shutdown_grace"].default
    + EXIT_SECONDS,
)

_FREE_ATTEMPTS = SignInSettings.model_fields["sign_in_free_attempts"].default
_DELAYS = sign_in_delays(_FREE_ATTEMPTS, SignInSettings.model_fields["sign_in_max_delay"].default)
_PAUSES = [0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 15 * 60]
_WORKER_PAUSES = (WORKER_BACKOFF.base, WORKER_BACKOFF.factor, WORKER_BACKOFF.cap)

PROMISES: dict[str, list[Promise]] = {
    PROTOS: [
        Promise("safe to retry for 24 hours", 24 * HOURS, REQUEST_ID_RETENTION),
        Promise("UndeleteUser can restore it for 30 days", 30 * DAYS, PURGE_AFTER),
        Promise("0 means 50; values above 1000 mean 1000", (50, 1000), (DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)),
        Promise("0 means 10.", 10, DEFAULT_TOP_USERS),
        Promise("If more than 10 000 notes match, only 10 000 of them are ranked", 10_000, MAX_RANKED),
        Promise("RESPONSE_TOO_LARGE) if there are more than 10 000 sums", 10_000, MAX_SUMS),
        Promise("If more than 10 000 users match, only 10 000 of them are ranked", 10_000, MAX_RANKED),
        Promise("or after 30 seconds (a server setting)", 30, LimitSettings.model_fields["default_deadline"].default),
        Promise("after 10 seconds (another", 10, DatabaseSettings.model_fields["expensive_read_timeout"].default),
        Promise("than 256 KiB a second", 256 * 1024, MIN_BYTES_PER_SECOND),
        Promise("reads nothing for a minute", 60, ExportSettings.model_fields["export_stall_timeout"].default),
        Promise("UUID (version 7)", 7, uuid7_beside(UUID(int=0)).version),
        Promise("but at most 10 000.", 10_000, MAX_RANKED),
        Promise("at most 500 characters, with `**`", 500, MAX_SNIPPET_LENGTH),
        Promise("parts of the first 2000 characters of the body", 2000, SEARCHED_FOR_SNIPPET),
        Promise("at most 32 different words", 32, MAX_WORDS),
        Promise("1 to 4000 characters. Can have several lines", 4000, MAX_BODY_LENGTH),
        Promise("At most 1000 characters. Can have several lines", 1000, MAX_BIO_LENGTH),
        Promise("8 to 128 characters in Unicode", (8, 128), (MIN_PASSWORD_LENGTH, MAX_PASSWORD_LENGTH)),
        Promise("1 to 500 items", 500, MAX_ITEMS),
        Promise("1 to 500 `items`", 500, MAX_ITEMS),
        Promise("1 to 10 000.", 10_000, MAX_QUANTITY),
        Promise("At most 50 normalized tags", 50, MAX_TAGS),
        Promise("more than 50 tags", 50, MAX_TAGS),
        Promise("A normalized tag has 1 to 50 characters", 50, MAX_LENGTH),
        Promise("The first 1000 rows that were not imported", 1000, MAX_FAILURES),
        Promise("in which they arrive, 1000 at a time", 1000, CHUNK_ROWS),
        Promise("after five of them a pause follows", 5, _FREE_ATTEMPTS),
        Promise("begins with one second and doubles with every further attempt, up to 15 minutes", _PAUSES, _DELAYS),
        Promise("valid for 180 days", 180 * DAYS, VALIDITY),
    ],
    "docs/calling.md": [
        Promise("Responses are stored for 24 hours", 24 * HOURS, REQUEST_ID_RETENTION),
        Promise("lives for 180 days", 180 * DAYS, VALIDITY),
        Promise("After five attempts without success a pause follows", 5, _FREE_ATTEMPTS),
    ],
    "SECURITY.md": [Promise("No pause is longer than 15 minutes", 15 * 60, _DELAYS[-1])],
    "docs/credit.md": [Promise("A hold lasts seven days", 7 * DAYS, HOLD_FOR)],
    "docs/operations.md": [
        Promise("erases users 30 days after their deletion", 30 * DAYS, PURGE_AFTER),
        Promise("stored responses of `request_id`s after 24 hours", 24 * HOURS, REQUEST_ID_RETENTION),
        Promise("One second later, transactions and statements", 1, _WORK_SECONDS),
        Promise("`COMMERCE_SHUTDOWN_GRACE` + 4 s after SIGTERM: 30.5 s by default", (4, 30.5), _DRAIN_SECONDS),
        Promise("after 0.1 s, then twice as long each time it ends soon again, up to 5 s", (0.1, 2, 5), _WORKER_PAUSES),
        Promise("five times in a row within a minute of its start", (5, 60), (_CRASH_LOOP, _STABLE_SECONDS)),
        Promise("It waits for a second longer than a worker may take", 1, _MARGIN_SECONDS),
        # A period until the next probe, and one for each answer that does not come.
        Promise("at most 5 s after the database", 5, (FAILURES_TO_STOP + 2) * PERIOD_SECONDS),
        # Until it is seen, until it counts as long, and until PostgreSQL has answered about it.
        Promise("is closed within 3 s", 3, 2 * (_LOOK_SECONDS + _LONG_SECONDS)),
        Promise("at most once in 10 s for each address", 10, _LOG_PERIOD_SECONDS),
        Promise("a keepalive every 5 s", 5, _SOCKET_OPTIONS["TCP_KEEPIDLE"]),
    ],
    "docs/security.md": [
        Promise("the fifteenth and every further one | 900 s", _PAUSES, _DELAYS),
        Promise("of 15 longest pauses (3 h 45 min)", (15 * 900, 3.75 * 3600), (forget_seconds(_DELAYS),) * 2),
        Promise("a number below 2^22", 2**22, SIGN_IN_SLOTS),
        Promise("it looks at the file every second", 1, POLL_SECONDS),
        Promise("the first ten in ten seconds", (10, 10), (MAX_LINES, DENIALS_PERIOD_SECONDS)),
        Promise("at least every five seconds", 5, WatchSettings.model_fields["watch_checkpoint_interval"].default),
        Promise("logged every ten seconds at most", 10, LOG_PERIOD_SECONDS),
        Promise("verified again every ten seconds", 10, RECHECK_SECONDS),
        Promise("0 to 60; 30 by default", (60, 30), (MAX_LEEWAY_SECONDS, _DEFAULT_LEEWAY_SECONDS)),
        Promise("within a second after the file has changed", 1, FILES_POLL_SECONDS),
        Promise("Keys at a URL are fetched every five minutes", 300, MAX_AGE_SECONDS),
        Promise("and at most once a minute", 60, MIN_AGE_SECONDS),
        Promise(
            "accepted: RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA.",
            {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"},
            ALGORITHMS,
        ),
        Promise("RSA keys have 2048 to 8192 bits", range(2048, 8193), _RSA_BITS),
        Promise("A name can have two valid keys", 2, MAX_VALID_KEYS),
        Promise("a key has 256 random bits", 256, 8 * _SECRET_BYTES),
    ],
    "docs/events.md": [
        Promise("pauses that grow to two seconds", 2.0, RetryPolicy().max_backoff),
        Promise("`stall_timeout` (30 s), although", 30.0, _default(Orders.watch, "stall_timeout")),
        Promise("`connect_timeout` (30 s), and if", 30.0, _default(Orders.watch, "connect_timeout")),
    ],
    "docs/import-export.md": [
        Promise("within `reconnect_timeout` (60 s)", 60.0, _default(Users.import_, "reconnect_timeout")),
        Promise("write two chunks of 1000 rows at a time", (2, 1000), (_MAX_WRITING, CHUNK_ROWS)),
        Promise("less than 256 KiB a second", 256 * 1024, MIN_BYTES_PER_SECOND),
    ],
    "docs/concepts.md": [
        Promise("The last 12 bits of a user's id", 12, SHARD_BITS),
        Promise("a deleted user is erased 30 days later", 30 * DAYS, PURGE_AFTER),
        Promise("A hold lasts seven days", 7 * DAYS, HOLD_FOR),
    ],
    "docs/errors/resources.md": [
        Promise("A deleted user is found for 30 days", 30 * DAYS, PURGE_AFTER),
        Promise("which is possible for 30 days", 30 * DAYS, PURGE_AFTER),
    ],
    "docs/errors/failures.md": [
        Promise("the server has already repeated the call twice", 2, MAX_ATTEMPTS - 1),
        Promise(
            "(30 seconds; 10 for expensive reads)",
            (30, 10),
            (
                LimitSettings.model_fields["default_deadline"].default,
                DatabaseSettings.model_fields["expensive_read_timeout"].default,
            ),
        ),
    ],
    "docs/glossary.md": [
        Promise("32 consecutive order numbers", 32, ORDER_NUMBER_BLOCK),
        Promise("1000 rows of an import", 1000, CHUNK_ROWS),
        Promise("A deleted user stays for 30 days", 30 * DAYS, PURGE_AFTER),
    ],
    "docs/migrations.md": [
        Promise("`lock_timeout` is 100 ms", "SET lock_timeout = '100ms'", _of_migrations("LOCK_TIMEOUT"))
    ],
    ARCHITECTURE: [
        Promise("80 ms, then 320 ms, jitter | 3 attempts", (Backoff(0.08, 4, jitter=0.5), 3), (BACKOFF, MAX_ATTEMPTS)),
        Promise("more than 32 KiB of messages", 32 * 1024, _MAX_BYTES),
        Promise("the next block of 32 order numbers", 32, ORDER_NUMBER_BLOCK),
        Promise("each question takes at most 2 s", 2, _ANSWER_SECONDS),
        Promise("0.25 s, or a quarter of `COMMERCE_MAX_REPLICA_LAG`", 0.25, _PERIOD_SECONDS),
        Promise("a chunk of 1000 rows", 1000, CHUNK_ROWS),
        Promise("50 ms, doubled up to 2 s, jitter", Backoff(0.05, 2, 2, 0.5), POLLER_BACKOFF),
        Promise("0.2 s, doubled up to 5 s, jitter", Backoff(0.2, 2, 5, 0.5), RELAY_BACKOFF),
        Promise("did not acknowledge within 5 s", 5, TIMEOUT_SECONDS),
        Promise("another relay of this name is active | 1 s", 1, STANDBY_SECONDS),
        Promise("600 s, then an error", 600, (upgrade.__kwdefaults__ or {})["patience"]),
        Promise("within `lock_timeout`, 100 ms | 0.3 s", 0.3, _of_migrations("LOCK_PAUSE_SECONDS")),
        Promise("150 attempts, then an error", 150, _of_migrations("LOCK_ATTEMPTS")),
        Promise("| verified tokens | 10,000", 10_000, MAX_TOKENS),
        Promise("files of identities have changed | a kind of identity is configured | 1 s", 1, FILES_POLL_SECONDS),
        Promise(
            "| every 5 minutes; also for an unknown key, at most once a minute",
            (300, 60),
            (MAX_AGE_SECONDS, MIN_AGE_SECONDS),
        ),
        Promise("at most every 10 s until they have been fetched once", 10, RETRY_SECONDS),
        Promise("each takes at most 5 s", 5, _FETCH_SECONDS),
        Promise("verifying the credential of a stream | a kind of identity is configured | 10 s", 10, RECHECK_SECONDS),
        Promise("| the readiness probe | always | 1 s", 1, PERIOD_SECONDS),
        Promise("3 failures in a row", 3, FAILURES_TO_STOP),
        Promise("2 successes in a row", 2, SUCCESSES_TO_SERVE),
        Promise("0.1 s, doubled up to 5 s, jitter", (0.1, 2, 5), _WORKER_PAUSES),
        Promise("five ends in a row within a minute of the start", (5, 60), (_CRASH_LOOP, _STABLE_SECONDS)),
        Promise("start 60 s", 60, _START_SECONDS),
        Promise("end of a previous server 30 s", 30, STOP_SECONDS),
        Promise("stores the last 1000 events", 1000, RECENT_EVENTS),
        Promise("it waits two seconds longer for the work", 2, _GRACE_SECONDS),
        Promise("at most four fifths of the pool", [80, 4, 1], [_share(size) for size in (100, 5, 2)]),
        Promise("At most two batches of a kind run", 2, _MAX_RUNNING),
        Promise("those that have been running for 250 ms", 0.25, _STUCK_SECONDS),
        Promise("| requests of more than 4 KiB in flight", 4 * 1024, _COUNTED_ABOVE_BYTES),
        Promise("32 MiB together", 32 * 1024 * 1024, LimitSettings.model_fields["max_request_bytes_in_flight"].default),
        Promise(": 12 MiB in all", 12 * 1024 * 1024, LimitSettings.model_fields["max_unread_response_bytes"].default),
        Promise("half of it for one caller", 0.5, MAX_PART),
        Promise(
            "so 32 MiB of requests", 32 * 1024 * 1024, LimitSettings.model_fields["max_request_bytes_in_flight"].default
        ),
        Promise("| 64 KiB |", 64 * 1024, MAX_STREAM_REQUEST_BYTES),
        Promise("| 10,000 together", 10_000, MAX_UNDELIVERED_EVENTS),
        Promise("10,000 events are kept in all", 10_000, MAX_UNDELIVERED_EVENTS),
        Promise("what reading 256 KiB a second takes", 256 * 1024, MIN_BYTES_PER_SECOND),
    ],
    "docs/adr/0012-events-are-read-below-the-oldest-transaction.md": [
        Promise("logs the delay after two seconds", 2, LAG_TO_LOG_SECONDS)
    ],
    "docs/adr/0025-ids-name-the-shard-of-their-user.md": [Promise("12 bits", 12, SHARD_BITS)],
    "service/cli/main.py": [
        Promise("purges users 30 days after their deletion", 30 * DAYS, PURGE_AFTER),
        Promise("deletes request ids after 24 hours", 24 * HOURS, REQUEST_ID_RETENTION),
        Promise("COMMERCE_EVENT_RETENTION_DAYS (90)", 90, GcSettings.model_fields["event_retention_days"].default),
    ],
    "CHANGELOG.md": [
        Promise("A request has at most 10,000 fields and elements", 10_000, MAX_FIELDS),
        Promise("at most 32 different words", 32, MAX_WORDS),
    ],
    "docs/adr/0002-verify-password-takes-no-request-id.md": [
        Promise("returns the same response for 24 hours", 24 * HOURS, REQUEST_ID_RETENTION)
    ],
}
ALL = [(name, promise) for name, promises in PROMISES.items() for promise in promises]
# A number in words, with a unit; not a name, a version, a measurement or an example.
_NUMBER = re.compile(r"(?<![\w.:-])\d(?:[\d ]*\d)?(?![\w.]*[\w])")
_WITH_UNIT = re.compile(
    r"\b(?:\d[\d .]*|two|three|four|five|six|seven|eight|nine|ten) "
    r"(?:s|ms|seconds?|minutes?|hours?|days?|weeks?|rows|attempts|characters|items|KiB|MiB)\b"
)

# Numbers that other tests pin: a standard, what an unset field means, and an empty body.
KNOWN = {
    "commerce.common.v1.ErrorReason.ERROR_REASON_UNKNOWN_CURRENCY": {4217},
    "commerce.users.v1.UserImportConfig.first_row_number": {1},
    "commerce.orders.v1.OrderNote.body": {1},
    "commerce.orders.v1.Tag.order_count": {0},
}


@cache
def _text(name: str) -> str:
    """Return a document, or the comments of all protos, with single spaces."""
    if name == PROTOS:
        return " ".join(comment for _, comment in _comments())
    return re.sub(r"\s+", " ", (ROOT / name).read_text())


def _comments() -> Iterator[tuple[str, str]]:
    """Yield the full name and the comment of everything in our protos that has one."""
    for file in sources().file:
        if not file.name.startswith("commerce/"):
            continue
        for location in file.source_code_info.location:
            if location.leading_comments:
                comment = re.sub(r"\s+", " ", location.leading_comments)
                yield ".".join((file.package, *_names(file, list(location.path)))), comment


def _names(parent: Any, path: list[int]) -> Iterator[str]:
    """Yield the names along a path of `google.protobuf.SourceCodeInfo`."""
    while len(path) >= 2:
        descriptor = parent.DESCRIPTOR
        parent = getattr(parent, descriptor.fields_by_number[path[0]].name)[path[1]]
        yield parent.name
        path = path[2:]


COMMENTS = list(_comments())


def _without_promises(name: str, text: str) -> str:
    for promise in PROMISES.get(name, ()):
        text = text.replace(promise.words, " ")
    return text


@pytest.mark.parametrize(("name", "promise"), ALL, ids=[f"{name}: {promise.words}" for name, promise in ALL])
def test_what_is_promised_is_true(name: str, promise: Promise) -> None:
    assert promise.words in _text(name)
    assert promise.actual == promise.promised


def test_a_statement_of_the_fast_path_gives_up_on_a_lock_after_50_ms() -> None:
    assert _LOCK_TIMEOUT == "50ms"


@pytest.mark.parametrize(("name", "comment"), COMMENTS, ids=[name for name, _ in COMMENTS])
def test_a_number_in_a_comment_of_a_proto_is_in_a_rule_or_pinned(name: str, comment: str) -> None:
    numbers = {int(found.replace(" ", "")) for found in _NUMBER.findall(_without_promises(PROTOS, comment))}
    assert numbers <= _numbers_of_rules(name) | KNOWN.get(name, set()), comment


def _numbers_of_rules(name: str) -> set[int]:
    """Return the numbers in the rules of a field; none, if the name is not that of a field."""
    try:
        field = Default().FindFieldByName(name)
    except KeyError:
        return set()
    return {int(number) for number in re.findall(r"\d+", text_format.MessageToString(rules_of(field)))}


DOCUMENTS = ["calling", "concepts", "credit", "errors", "events", "import-export", "operations", "glossary"]
DOCUMENTS += [f"errors/{name}" for name in ("callers", "failures", "requests", "resources", "streams")]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_limit_or_time_in_a_document_is_pinned(name: str) -> None:
    document = f"docs/{name}.md"
    # What examples of errors say comes from a server (tests/errors).
    prose = re.sub(r"```json .*? ```", "", _text(document))
    text = re.sub(r"`COMMERCE_\w+` \(.*?\)", "", _without_promises(document, prose))
    assert not _WITH_UNIT.findall(text)


def _defaults() -> dict[str, Any]:
    return {environment_name(kind, field): info.default for kind in KINDS for field, info in kind.model_fields.items()}


def test_documents_name_settings_with_their_defaults() -> None:
    defaults = _defaults()
    found = [
        (path.name, *match)
        for path in sorted(ROOT.glob("docs/**/*.md"))
        for match in re.findall(r"`(COMMERCE_\w+)`\s\((\d[\d.]*)(?:\s(s|ms|days))?\)", path.read_text())
    ]
    assert len(found) > 3
    for document, setting, number, unit in found:
        value = float(number) / (1000 if unit == "ms" else 1)
        assert value == defaults[setting], f"{document}: {setting}"
