"""All metrics: their names, types and labels, and what each is for. docs/metrics.md lists them from here.

A label has few values: what clients, users or texts bring never becomes one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from service.observability.metrics.histogram import BATCH_SIZES, CALL_SECONDS, SHORT_SECONDS

Kind = Literal["counter", "gauge", "histogram"]
# How the values of several workers become one: their sum, the highest or lowest of them, or one for each worker.
Merge = Literal["sum", "max", "min", "each"]


@dataclass(frozen=True, slots=True)
class Family:
    """A metric.

    Attributes:
        name: its name, without the suffix `_total` of counters.
        kind: its type.
        words: what it is, for its HELP line and the documentation.
        labels: the names of its labels.
        merge: how the values of several workers become one.
        bounds: the bounds of its buckets, if it is a histogram.
        unit: the last word of its name, if that is a unit.
    """

    name: str
    kind: Kind
    words: str
    labels: Sequence[str] = ()
    merge: Merge = "sum"
    bounds: Sequence[float] = ()

    @property
    def unit(self) -> str:
        """The unit, which is the end of the name; empty without one."""
        return next((unit for unit in ("seconds", "bytes") if self.name.endswith(f"_{unit}")), "")

    @property
    def documented_name(self) -> str:
        """The name as queries write it."""
        return f"{self.name}_total" if self.kind == "counter" else self.name


# For each part of the documentation, its metrics in order.
PARTS: dict[str, list[Family]] = {}


def _part(name: str) -> list[Family]:
    PARTS[name] = []
    return PARTS[name]


def _family(
    part: list[Family],
    name: str,
    kind: Kind,
    words: str,
    *labels: str,
    merge: Merge = "sum",
    bounds: Sequence[float] = (),
) -> Family:
    family = Family(name, kind, words, labels, merge, bounds)
    part.append(family)
    return family


_METHOD = ("grpc_service", "grpc_method")
_TYPED_METHOD = ("grpc_type", *_METHOD)

_p = _part("Calls")
STARTED = _family(_p, "grpc_server_started", "counter", "Calls that have begun.", *_TYPED_METHOD)
HANDLED = _family(
    _p,
    "grpc_server_handled",
    "counter",
    "Calls that have ended, by status code and by the reason of the error (docs/errors.md); the reason is empty without"
    " one.",
    *_TYPED_METHOD,
    "grpc_code",
    "reason",
)
HANDLING_SECONDS = _family(
    _p,
    "grpc_server_handling_seconds",
    "histogram",
    "Time from the request to the end of the call, of streams to the last message. Calls that were refused before they"
    " were read are not in it.",
    *_TYPED_METHOD,
    bounds=CALL_SECONDS,
)
MESSAGES_RECEIVED = _family(
    _p, "grpc_server_msg_received", "counter", "Messages that calls have received.", *_TYPED_METHOD
)
MESSAGES_SENT = _family(_p, "grpc_server_msg_sent", "counter", "Messages that calls have sent.", *_TYPED_METHOD)
RUNNING_CALLS = _family(
    _p, "commerce_calls_running", "gauge", "Calls that are running, with those that wait.", *_METHOD
)
REFUSED_CALLS = _family(
    _p,
    "commerce_calls_refused",
    "counter",
    "Calls that were refused for load (OVERLOADED), by what was full.",
    *_METHOD,
    "cause",
)
STALLED_CALLS = _family(
    _p,
    "commerce_calls_stalled",
    "counter",
    "Calls that were cancelled because their clients neither sent nor read in time.",
)
ATTEMPTS = _family(
    _p,
    "commerce_call_attempts",
    "counter",
    "Attempts at the work of calls; more than one for a call that met contention or a lost connection.",
    *_METHOD,
)
REPLAYS = _family(
    _p,
    "commerce_request_id_replays",
    "counter",
    "Calls that were answered with the response stored under their request_id.",
    *_METHOD,
)
COMMITTED = _family(
    _p,
    "commerce_calls_committed",
    "counter",
    "Mutations that were committed: as one statement (fast_path), or as a transaction.",
    *_METHOD,
    "way",
)
ADMISSION_LIMIT = _family(
    _p, "commerce_admission_limit", "gauge", "How many calls of the method admission lets run now.", *_METHOD
)
ADMISSION_RUNNING = _family(
    _p,
    "commerce_admission_running",
    "gauge",
    "Admitted calls that are running, without those that are stuck.",
    *_METHOD,
)
ADMISSION_WAITING = _family(_p, "commerce_admission_waiting", "gauge", "Calls that wait for admission.", *_METHOD)
REFUSALS_WAITING = _family(
    _p, "commerce_refusals_waiting", "gauge", "Refused calls whose answer waits, because there are too many of them."
)

_p = _part("Database")
POOL_SIZE = _family(_p, "commerce_db_pool_size", "gauge", "Most connections that may be in use.", "pool")
POOL_IN_USE = _family(_p, "commerce_db_pool_in_use", "gauge", "Connections that are in use.", "pool")
POOL_WAITING = _family(_p, "commerce_db_pool_waiting", "gauge", "Calls and batches that wait for a connection.", "pool")
POOL_WAIT_SECONDS = _family(
    _p,
    "commerce_db_pool_wait_seconds",
    "histogram",
    "Time that was waited for a connection, by those that had to wait.",
    "pool",
    bounds=SHORT_SECONDS,
)
POOL_TIMEOUTS = _family(
    _p,
    "commerce_db_pool_timeouts",
    "counter",
    "Waits for a connection that ended without one: after COMMERCE_DB_POOL_TIMEOUT (timeout), or at the deadline of the"
    " call (deadline).",
    "pool",
    "cause",
)
CONNECTIONS_OPEN = _family(
    _p, "commerce_db_connections_open", "gauge", "Connections that are open, in use or idle.", "pool"
)
CONNECTIONS_OPENED = _family(_p, "commerce_db_connections_opened", "counter", "Connections that were opened.", "pool")
CONNECTIONS_INVALIDATED = _family(
    _p,
    "commerce_db_connections_invalidated",
    "counter",
    "Connections that were given up because they were lost or broken.",
    "pool",
)
STATEMENT_SECONDS = _family(
    _p,
    "commerce_db_statement_seconds",
    "histogram",
    "Time from sending a statement to its last row, by the name of the statement.",
    "statement",
    bounds=SHORT_SECONDS,
)
STATEMENT_ROWS = _family(
    _p, "commerce_db_statement_rows", "counter", "Rows that statements have returned or changed.", "statement"
)
STATEMENT_FAILURES = _family(
    _p, "commerce_db_statement_failures", "counter", "Statements that failed or were cancelled.", "statement"
)
SLOW_STATEMENTS = _family(
    _p, "commerce_db_slow_statements", "counter", "Statements that took longer than 1 s.", "statement"
)
BATCH_SIZE = _family(
    _p,
    "commerce_batch_size",
    "histogram",
    "Calls that shared a statement, by what the statement does.",
    "batch",
    bounds=BATCH_SIZES,
)
REPLICA_IN_USE = _family(
    _p, "commerce_db_replica_in_use", "gauge", "1 while reads may go to the replica, else 0.", merge="min"
)
REPLICA_LAG = _family(
    _p,
    "commerce_db_replica_lag_seconds",
    "gauge",
    "Age of the newest known position of the primary that the replica has replayed; +Inf if it is not known.",
    merge="max",
)
REPLICA_READS = _family(
    _p,
    "commerce_db_replica_reads",
    "counter",
    "Reads that preferred the replica, by the server that answered.",
    "server",
)

_p = _part("Events")
FEED_POSITION = _family(
    _p,
    "commerce_event_feed_position",
    "gauge",
    "Number of the last event that the event feed has read; it reads only while there are live watchers.",
    merge="max",
)
FEED_LAG = _family(
    _p,
    "commerce_event_feed_lag_seconds",
    "gauge",
    "How long the oldest unread event has waited for a running transaction.",
    merge="max",
)
FEED_EVENTS = _family(_p, "commerce_event_feed_events", "counter", "Events that the event feed has read.")
WATCHERS = _family(_p, "commerce_event_watchers", "gauge", "Watchers, by how they get their next events.", "state")
QUEUED_EVENTS = _family(
    _p, "commerce_event_queue_depth", "gauge", "Events in the queues of watchers, all of them together."
)
LONGEST_QUEUE = _family(
    _p, "commerce_event_queue_longest", "gauge", "Events in the longest queue of a watcher.", merge="max"
)
DROPS = _family(
    _p,
    "commerce_event_drops",
    "counter",
    "How often a watcher has lost its place in the feed and reads the events again from the log: its queue was full"
    " (overflow), was not read in time (stalled), or its page was given up (page).",
    "cause",
)
RELAY_ACTIVE = _family(
    _p,
    "commerce_relay_active",
    "gauge",
    "1 while this relay publishes, 0 while it waits for another one of its name, or for the database or the broker.",
)
RELAY_LAG = _family(
    _p,
    "commerce_relay_lag_seconds",
    "gauge",
    "Age of the oldest event that the relay has not published.",
)
RELAY_PUBLISHED = _family(_p, "commerce_relay_published", "counter", "Events that the broker has acknowledged.")
RELAY_INTERRUPTIONS = _family(
    _p, "commerce_relay_interruptions", "counter", "How often publishing was interrupted by the database or the broker."
)
GC_RUNS = _family(
    _p, "commerce_gc_runs", "counter", "Runs of each part of commerce gc, by outcome.", "part", "outcome", merge="max"
)
GC_HANDLED = _family(
    _p, "commerce_gc_handled", "counter", "What each part of commerce gc has deleted or updated.", "part", merge="max"
)
GC_LAST_SUCCESS = _family(
    _p,
    "commerce_gc_last_success_timestamp_seconds",
    "gauge",
    "When a part of commerce gc has last succeeded; 0 if it never has.",
    "part",
    merge="max",
)
LEDGER_CONSISTENT = _family(
    _p,
    "commerce_ledger_consistent",
    "gauge",
    "1 if the last recorded check of the ledger (commerce verify-ledger --record) found no difference, else 0.",
    merge="min",
)
LEDGER_CHECKED = _family(
    _p,
    "commerce_ledger_checked_timestamp_seconds",
    "gauge",
    "When the ledger was last checked, with any result.",
    merge="max",
)

_p = _part("Identities and passwords")
AUTHENTICATED = _family(
    _p,
    "commerce_authentications",
    "counter",
    "Calls of known callers, by the credential that names them.",
    "credential",
)
AUTHENTICATION_FAILURES = _family(
    _p,
    "commerce_authentication_failures",
    "counter",
    "Calls that were refused because the caller could not be identified.",
    "credential",
    "problem",
)
DENIALS = _family(
    _p,
    "commerce_permission_denials",
    "counter",
    "Calls that were denied, by the permission that was missing.",
    *_METHOD,
    "permission",
)
CERTIFICATE_EXPIRY = _family(
    _p,
    "commerce_tls_certificate_expiry_timestamp_seconds",
    "gauge",
    "When the server's certificate, or one of its chain, expires.",
    merge="min",
)
LOADED = _family(
    _p,
    "commerce_loaded_timestamp_seconds",
    "gauge",
    "When the certificates, API keys, token keys or policy in use were loaded.",
    "what",
    "issuer",
    merge="min",
)
LOAD_FAILING = _family(
    _p,
    "commerce_load_failing",
    "gauge",
    "1 while the newest certificates, API keys, token keys or policy cannot be used, so that older ones stay in use.",
    "what",
    "issuer",
    merge="max",
)
PASSWORDS_WAITING = _family(
    _p, "commerce_passwords_waiting", "gauge", "Passwords that wait for a thread, by who waits for them.", "for"
)
PASSWORDS_RUNNING = _family(_p, "commerce_passwords_running", "gauge", "Passwords that threads are hashing.")
PASSWORD_WAIT_SECONDS = _family(
    _p,
    "commerce_password_wait_seconds",
    "histogram",
    "Time that passwords of interactive callers have waited for a thread.",
    bounds=SHORT_SECONDS,
)
PASSWORD_SECONDS = _family(
    _p,
    "commerce_password_seconds",
    "histogram",
    "Time that a thread has taken to hash or verify a password.",
    bounds=SHORT_SECONDS,
)

_p = _part("Process")
BUILD = _family(
    _p,
    "commerce_build_info",
    "gauge",
    "1, with the versions in its labels.",
    "version",
    "python",
    "grpcio",
    merge="max",
)
READY = _family(
    _p, "commerce_ready", "gauge", "1 while the health service reports SERVING for readiness, else 0.", merge="each"
)
DRAINING = _family(_p, "commerce_draining", "gauge", "1 from SIGTERM on, else 0.", merge="each")
LOOP_LAG = _family(
    _p,
    "commerce_event_loop_lag_seconds",
    "histogram",
    "How much later than wanted a timer of the event loop has run: how long other calls kept it busy.",
    bounds=SHORT_SECONDS,
)
GC_PAUSE = _family(
    _p,
    "python_gc_pause_seconds",
    "histogram",
    "Time that a garbage collection of Python has taken.",
    bounds=SHORT_SECONDS,
)
GC_COLLECTIONS = _family(_p, "python_gc_collections", "counter", "Garbage collections of Python.", "generation")
GC_COLLECTED = _family(
    _p, "python_gc_objects_collected", "counter", "Objects that garbage collections have freed.", "generation"
)
CPU_SECONDS = _family(_p, "process_cpu_seconds", "counter", "User and system CPU time of the process.", merge="each")
START_TIME = _family(
    _p, "process_start_time_seconds", "gauge", "When the process was started, since 1970.", merge="each"
)
RESIDENT_BYTES = _family(_p, "process_resident_memory_bytes", "gauge", "Resident memory.", merge="each")
VIRTUAL_BYTES = _family(_p, "process_virtual_memory_bytes", "gauge", "Virtual memory.", merge="each")
OPEN_FDS = _family(_p, "process_open_fds", "gauge", "Open file descriptors.", merge="each")
MAX_FDS = _family(_p, "process_max_fds", "gauge", "Most file descriptors that may be open.", merge="each")
THREADS = _family(_p, "process_threads", "gauge", "Threads.", merge="each")

_p = _part("Workers")
WORKERS = _family(_p, "commerce_workers", "gauge", "Workers that are running; only with COMMERCE_WORKERS.")
WORKER_STARTS = _family(
    _p,
    "commerce_worker_starts",
    "counter",
    "Workers that were started, with the first ones; only with COMMERCE_WORKERS.",
)
REPORT_AGE = _family(
    _p,
    "commerce_worker_report_age_seconds",
    "gauge",
    "How long ago a worker has last reported its metrics; only with COMMERCE_WORKERS.",
    merge="each",
)

FAMILIES = {family.name: family for families in PARTS.values() for family in families}
