"""The metrics of a server: what its parts count while calls run, and what is read of them for the page.

It is an addition, switched on in `service.server` by COMMERCE_METRICS_PORT. Without it, nothing here runs, no call is
counted and no statement is measured; what parts of the server count where calls wait, fail or are refused is also for
the log.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from service.application.ports.errors import Overloaded, StoreError
from service.db.connections.measured import MeasuredEngine
from service.db.connections.slots import Slots
from service.db.database import Database
from service.db.events.feed import PollingEventFeed
from service.db.events.watcher import WatcherState
from service.db.operations.maintenance_runs import LEDGER_CHECK, MaintenanceRuns
from service.observability.logs import where_raised
from service.observability.metrics import catalogue
from service.observability.metrics.calls import Calls
from service.observability.metrics.process import ProcessMetrics
from service.observability.metrics.snapshot import Snapshot
from service.observability.metrics.statements import Statements
from service.passwords import Argon2Passwords
from service.rpc.admission.admission import Admission
from service.rpc.admission.refusals import Refusals
from service.rpc.health import Readiness
from service.rpc.identity.denials import Denials
from service.rpc.identity.identities import Identities
from service.rpc.identity.policy_file import PolicyFile
from service.rpc.transport.tls import ServerCertificates

# How often it is read in the database what `commerce gc` and the check of the ledger have done.
_MAINTENANCE_SECONDS = 15.0
# The values of the label for the credential, by those of the log.
_CREDENTIALS = {
    "none": "none",
    "bearer token": "token",
    "API key": "api_key",
    "client certificate": "client_certificate",
}

log = structlog.get_logger()


class _Loaded(Protocol):
    """What was loaded from a file or a URL, and is loaded again.

    Attributes:
        loaded_at: when, in seconds since 1970.
        problem: why what is there now cannot be used; None if it is in use.
    """

    loaded_at: float
    problem: str | None


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a server that metrics are read from."""

    database: Database
    feed: PollingEventFeed
    passwords: Argon2Passwords
    readiness: Readiness
    refusals: Refusals
    denials: Denials
    admission: Admission | None
    identities: Identities | None
    policies: PolicyFile | None
    certificates: ServerCertificates | None


class ServerMetrics:
    """The metrics of one serving process, from `start` to `stop`.

    Attributes:
        calls: counts the calls.
        statements: counts the statements.
        draining: whether the server drains.
    """

    def __init__(self) -> None:
        self.calls = Calls()
        self.statements = Statements()
        self.draining = False
        self._process = ProcessMetrics()
        self._parts: Parts | None = None
        # Tells processes apart: the counts of another one cannot be compared.
        self._start_time = time.time()
        self._maintenance: asyncio.Task[None] | None = None
        self._runs: Sequence[MaintenanceRuns] = ()

    async def start(self, parts: Parts) -> None:
        """Begin to measure, when all parts of the server have started."""
        self._parts = parts
        self._process.start()
        self._maintenance = asyncio.create_task(self._read_maintenance(parts.database))

    def stop(self) -> None:
        """End that; a snapshot can still be taken."""
        self._process.stop()
        if self._maintenance:
            self._maintenance.cancel()

    async def take(self) -> Snapshot:
        """Return what all metrics are now."""
        return self.snapshot()

    def snapshot(self) -> Snapshot:
        """Return what all metrics are now."""
        snapshot = Snapshot()
        self.calls.add_to(snapshot)
        self.statements.add_to(snapshot)
        self._process.add_to(snapshot)
        snapshot.add(catalogue.DRAINING, int(self.draining))
        if parts := self._parts:
            snapshot.add(catalogue.READY, int(parts.readiness.serving))
            snapshot.add(catalogue.REFUSALS_WAITING, parts.refusals.waiting)
            _add_admission(snapshot, parts.admission)
            _add_database(snapshot, parts.database)
            _add_events(snapshot, parts.feed)
            _add_identities(snapshot, parts)
            _add_passwords(snapshot, parts.passwords)
        for runs in self._runs:
            _add_maintenance(snapshot, runs)
        return snapshot

    def status(self) -> dict[str, object]:
        """Return what the console shows of this process, as values of JSON: counts since its start, and what is now.

        The durations are those of unary calls.
        """
        outcomes, durations, running = self.calls.summary()
        pool = self._parts.database.pools["calls"] if self._parts else None
        return {
            "startTime": self._start_time,
            "outcomes": outcomes,
            "durations": {"bounds": list(durations.bounds), "counts": durations.counts},
            "running": running,
            "pool": {"size": pool.size, "inUse": pool.in_use, "waiting": pool.waiting} if pool else None,
        }

    async def _read_maintenance(self, database: Database) -> None:
        failed = False
        while True:
            try:
                self._runs = await database.maintenance_runs()
                failed = False
            except (StoreError, Overloaded) as error:
                # Readiness says what is wrong with the database.
                if not failed:
                    log.info("cannot read what gc has done", **where_raised(error))
                failed = True
            except Exception:
                # Without this, one unknown error would end the reading, and the last figures would stay.
                log.exception("reading what gc has done failed")
            await asyncio.sleep(_MAINTENANCE_SECONDS)


def _add_admission(snapshot: Snapshot, admission: Admission | None) -> None:
    for path, gate in admission.gates.items() if admission else ():
        service, _, method = path.lstrip("/").partition("/")
        snapshot.add(catalogue.ADMISSION_LIMIT, gate.limit.value, service, method)
        snapshot.add(catalogue.ADMISSION_RUNNING, gate.running, service, method)
        snapshot.add(catalogue.ADMISSION_WAITING, gate.waiting, service, method)


def _add_database(snapshot: Snapshot, database: Database) -> None:
    for name, slots in database.pools.items():
        _add_slots(snapshot, name, slots)
    _add_connections(snapshot, "calls", database.measured)
    if replica := database.replica:
        _add_slots(snapshot, "replica", replica.slots)
        _add_connections(snapshot, "replica", replica.measured)
        snapshot.add(catalogue.REPLICA_IN_USE, int(replica.in_use))
        snapshot.add(catalogue.REPLICA_LAG, replica.lag)
        for server in ("primary", "replica"):
            snapshot.add(catalogue.REPLICA_READS, replica.reads[server], server)


def _add_slots(snapshot: Snapshot, name: str, slots: Slots) -> None:
    snapshot.add(catalogue.POOL_SIZE, slots.size, name)
    snapshot.add(catalogue.POOL_IN_USE, slots.in_use, name)
    snapshot.add(catalogue.POOL_WAITING, slots.waiting, name)
    snapshot.add(catalogue.POOL_WAIT_SECONDS, slots.waits, name)
    for cause in ("timeout", "deadline"):
        snapshot.add(catalogue.POOL_TIMEOUTS, slots.failed_waits[cause], name, cause)


def _add_connections(snapshot: Snapshot, name: str, measured: MeasuredEngine | None) -> None:
    if measured:
        snapshot.add(catalogue.CONNECTIONS_OPEN, measured.open, name)
        snapshot.add(catalogue.CONNECTIONS_OPENED, measured.opened, name)
        snapshot.add(catalogue.CONNECTIONS_INVALIDATED, measured.invalidated, name)


def _add_events(snapshot: Snapshot, feed: PollingEventFeed) -> None:
    _add_slots(snapshot, "events", feed.slots)
    _add_connections(snapshot, "events", feed.measured)
    snapshot.add(catalogue.FEED_POSITION, feed.position)
    snapshot.add(catalogue.FEED_LAG, feed.lag)
    snapshot.add(catalogue.FEED_EVENTS, feed.events)
    states = Counter(watcher.state for watcher in feed.watchers)
    for state in WatcherState:
        snapshot.add(catalogue.WATCHERS, states[state], state.name.lower())
    lengths = [len(watcher.queue) for watcher in feed.watchers]
    snapshot.add(catalogue.QUEUED_EVENTS, sum(lengths))
    snapshot.add(catalogue.LONGEST_QUEUE, max(lengths, default=0))
    for cause in ("overflow", "stalled", "page"):
        snapshot.add(catalogue.DROPS, feed.drops[cause], cause)


def _add_identities(snapshot: Snapshot, parts: Parts) -> None:
    if parts.identities:
        for (credential, problem), count in parts.identities.refusals.counts.copy().items():
            snapshot.add(catalogue.AUTHENTICATION_FAILURES, count, _CREDENTIALS[credential], problem)
    for (path, permission), count in parts.denials.counts.copy().items():
        service, _, method = path.lstrip("/").partition("/")
        snapshot.add(catalogue.DENIALS, count, service, method, permission)
    if certificates := parts.certificates:
        snapshot.add(catalogue.CERTIFICATE_EXPIRY, certificates.expires.timestamp())
        snapshot.add(catalogue.LOADED, certificates.loaded_at.timestamp(), "certificates", "")
        snapshot.add(catalogue.LOAD_FAILING, int(certificates.failure is not None), "certificates", "")
    for (what, issuer), loaded in _loaded(parts):
        snapshot.add(catalogue.LOADED, loaded.loaded_at, what, issuer)
        snapshot.add(catalogue.LOAD_FAILING, int(loaded.problem is not None), what, issuer)


def _loaded(parts: Parts) -> Iterator[tuple[tuple[str, str], _Loaded]]:
    if parts.policies:
        yield ("policy", ""), parts.policies
    if parts.identities and parts.identities.keys:
        yield ("api_keys", ""), parts.identities.keys
    if parts.identities and parts.identities.tokens:
        # The names of issuers are those of a file of the operator.
        key_sets: Mapping[str, _Loaded] = parts.identities.tokens.key_sets
        yield from ((("token_keys", issuer), key_set) for issuer, key_set in key_sets.items())


def _add_maintenance(snapshot: Snapshot, runs: MaintenanceRuns) -> None:
    if runs.part == LEDGER_CHECK:
        snapshot.add(catalogue.LEDGER_CONSISTENT, int(runs.last_success > runs.last_failure))
        snapshot.add(catalogue.LEDGER_CHECKED, max(runs.last_success, runs.last_failure))
    else:
        snapshot.add(catalogue.GC_RUNS, runs.successes, runs.part, "success")
        snapshot.add(catalogue.GC_RUNS, runs.failures, runs.part, "failure")
        snapshot.add(catalogue.GC_HANDLED, runs.handled, runs.part)
        snapshot.add(catalogue.GC_LAST_SUCCESS, runs.last_success, runs.part)


def _add_passwords(snapshot: Snapshot, passwords: Argon2Passwords) -> None:
    for name, count in passwords.turns.waiting.items():
        snapshot.add(catalogue.PASSWORDS_WAITING, count, name)
    snapshot.add(catalogue.PASSWORDS_RUNNING, passwords.running)
    snapshot.add(catalogue.PASSWORD_WAIT_SECONDS, passwords.turns.waits)
    snapshot.add(catalogue.PASSWORD_SECONDS, passwords.seconds)
