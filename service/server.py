"""The server: builds its parts, serves, and drains on SIGTERM.

Each optimization is an addition, switched on in one place here by `OptimizationSettings`:

- `Server._open_database`: batched reads, encoded messages, the held connection;
- `Server._interceptors`: the fast path;
- `Server._accepting_server`: several pending accepts;
- `Server._schedule_threads`, `Server._lower_polling_thread_priority`: batch scheduling;
- `AdaptiveScheduling` in `Server.start`: batch scheduling only under load;
- `Server.start`: the frozen garbage collector;
- `new_event_loop`: the event loop.

Admission is an addition too, switched on in `Server._interceptors` by `AdmissionSettings`. So are metrics, in
`Server.__init__` by `MetricsSettings`: without, each part is given None instead of what counts.
`commerce debug` looks at the parts from outside (`Server._start_debugging`, `DebugSettings`).

Only the batched log lines are switched elsewhere, where logging is configured (`service.observability.logs`).
"""

import asyncio
import os
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog
import uvloop
from commerce.orders.v1.order_service_pb2_grpc import add_OrderServiceServicer_to_server
from commerce.users.v1.user_service_pb2_grpc import add_UserServiceServicer_to_server
from google.protobuf.internal import api_implementation
from grpc_health.v1.health import SERVICE_NAME as HEALTH
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server

from service.application.ports.unit_of_work import TimeLeft
from service.config import OptimizationSettings, ServerSettings, signing_key_bytes
from service.db.connections.replica import Replica
from service.db.database import Database
from service.db.events.feed import PollingEventFeed
from service.db.operations.recoverability import MISSING_KEY
from service.db.reads.snapshots import Snapshots
from service.db.writes.encoded_messages import MessageEncoders
from service.debugging.answers import Debugging
from service.debugging.observation import Parts as DebuggedParts
from service.domain.sign_in import sign_in_delays
from service.http.loading import HttpUnavailable, http_port
from service.http.loading_metrics import MetricsUnavailable, listening_metrics_port
from service.observability.logs import log_loop_failure
from service.passwords import Argon2Passwords
from service.rpc.admission.admission import Admission
from service.rpc.call_context import current_unit_of_work, prefers_replica, time_left
from service.rpc.health import HealthServicer, Readiness
from service.rpc.identity.caller import ANONYMOUS
from service.rpc.identity.identities import Identities, IdentityError
from service.rpc.identity.policy_file import PolicyFile
from service.rpc.identity.policy_parsing import PolicyError
from service.rpc.identity.status_access import StatusAccess
from service.rpc.interceptors.access_log import AccessLogInterceptor
from service.rpc.interceptors.admission import AdmissionInterceptor
from service.rpc.interceptors.authentication import AuthenticationInterceptor
from service.rpc.interceptors.authorization import AuthorizationInterceptor
from service.rpc.interceptors.base import InterceptedMethods, Interceptor
from service.rpc.interceptors.deserialization import DeserializationInterceptor
from service.rpc.interceptors.errors import ErrorInterceptor
from service.rpc.interceptors.message_counts import MessageCountsInterceptor
from service.rpc.interceptors.ownership import OwnershipInterceptor
from service.rpc.interceptors.privileged_fields import PrivilegedFieldsInterceptor
from service.rpc.interceptors.transaction import TransactionInterceptor
from service.rpc.interceptors.unread_responses import UnreadResponsesInterceptor
from service.rpc.interceptors.validation import ValidationInterceptor
from service.rpc.messages.orders import OrderMessageCache, encode_order, watch_orders_response
from service.rpc.messages.users import encode_user, watch_users_response
from service.rpc.reflection import add_reflection
from service.rpc.servicers.orders import OrderServicer
from service.rpc.servicers.users import UserServicer
from service.rpc.signing.cursors import Cursors
from service.rpc.signing.device_tokens import DeviceTokens
from service.rpc.signing.page_tokens import PageTokens
from service.rpc.streams.exports import Exports
from service.rpc.streams.imports import UserImports
from service.rpc.streams.watch import Watch
from service.rpc.transport import event_loop
from service.rpc.transport.accepting import AcceptingServer
from service.rpc.transport.endpoints import CannotListen, Endpoints
from service.rpc.transport.exposure import Exposed, require_http_protection, require_metrics_protection
from service.rpc.transport.limits import channel_options, connections_that_fit
from service.rpc.transport.listening import UnixSocket
from service.rpc.transport.scheduling import (
    AdaptiveScheduling,
    freeze_garbage_collector,
    lower_polling_thread_priority,
    use_batch_scheduling,
)
from service.rpc.transport.tls import CertificateError, ServerCertificates
from service.runtime.deadline import Deadline, no_deadline
from service.runtime.errors import OperatorError
from service.runtime.exit_deadline import ExitDeadline, drain_seconds, leaving_seconds
from service.runtime.stop_signals import StopSignals
from service.server_metrics import Parts, ServerMetrics

if TYPE_CHECKING:
    from service.http.metrics_port import MetricsPort
    from service.http.port import HttpPort

# For commands that write to the database. The server has encoders of its own, which build each order message once.
MESSAGE_ENCODERS = MessageEncoders(order=encode_order, user=encode_user)
# The methods that write one order and nothing else, so that the fast path can do them with one statement.
FAST_PATH_METHODS = tuple(
    f"/commerce.orders.v1.OrderService/{name}"
    for name in ("CreateOrder", "ConfirmOrder", "ProcessOrder", "ShipOrder", "DeliverOrder", "CancelOrder")
)
# The reads by id whose calls share statements.
BATCHED_METHODS = (
    *(f"/commerce.users.v1.UserService/{name}" for name in ("GetUser", "BatchGetUsers")),
    *(f"/commerce.orders.v1.OrderService/{name}" for name in ("GetOrder", "BatchGetOrders")),
)
# The methods that mostly wait for a thread that hashes passwords.
PASSWORD_METHODS = tuple(
    f"/commerce.users.v1.UserService/{name}" for name in ("CreateUser", "SetPassword", "VerifyPassword")
)
USER_SERVICE = "commerce.users.v1.UserService"
ORDER_SERVICE = "commerce.orders.v1.OrderService"
SERVICES = (USER_SERVICE, ORDER_SERVICE)
# How often a draining server looks whether clients are still connected.
_CONNECTION_CHECK_SECONDS = 0.1
# How long HTTP clients have to read their responses after all calls have ended.
_RESPONSE_SECONDS = 0.5
# These seconds after the grace period of running calls, units of work that still run are rolled back,
_WORK_SECONDS = 1.0
# the server stops waiting for what has not ended, and the process is ended by force (`service.runtime.exit_deadline`).
_CLOSE_SECONDS = 2.0

log = structlog.get_logger()


class StartError(OperatorError):
    """The server cannot start."""


def new_event_loop(settings: OptimizationSettings) -> asyncio.AbstractEventLoop:
    """Return a new event loop to run the server on."""
    match settings.event_loop:
        case "auto":
            return event_loop.new_event_loop(settings.accept_mode)
        case "uvloop":
            return uvloop.new_event_loop()
        case "asyncio":
            return asyncio.new_event_loop()


class Server:
    """One serving process: `start`, then `wait_until_signalled`, or `stop` at any time.

    Args:
        settings: the settings.
        worker: its number among several workers; None if it is none of several.

    Attributes:
        settings: the settings.
        http: the HTTP port; None without one.
        metrics: what is counted and measured; None if no metrics are wanted.
        draining: whether it drains.
    """

    def __init__(self, settings: ServerSettings, worker: int | None = None) -> None:
        self.settings = settings
        # Tasks that run until the server closes.
        self._background: list[asyncio.Task[None]] = []
        self.http: HttpPort | None = None
        self.metrics = ServerMetrics() if settings.metrics_port is not None else None
        self._metrics_port: MetricsPort | None = None
        self.draining = False
        self._worker = worker
        self._debugging: Debugging | None = None

    @property
    def port(self) -> int:
        """The TCP port; 0 without one."""
        return self._endpoints.port

    @property
    def http_port(self) -> int:
        """The TCP port for HTTP; 0 without one."""
        return self.http.port if self.http else 0

    @property
    def metrics_port(self) -> int:
        """The TCP port for metrics; 0 without one."""
        return self._metrics_port.port if self._metrics_port else 0

    @property
    def certificates(self) -> ServerCertificates | None:
        """The certificates of TLS, and what became of their last reload; None without TLS."""
        return self._endpoints.certificates

    async def start(self) -> None:
        """Build all parts of the server and listen.

        Raises:
            StartError: the policy or the database cannot be used, there is no signing key, or the address cannot be
                listened on.
        """
        _require_fast_protobuf()
        self._find_endpoints()
        self._policies = self._read_policy()
        self._schedule_threads()
        asyncio.get_running_loop().set_exception_handler(log_loop_failure)
        await self._open_database()
        self._passwords = Argon2Passwords(self.settings, time_left)
        await self._open_identities()
        signing_key = await self._signing_key()
        methods = self._interceptors(signing_key)
        self._add_services(methods, signing_key)
        await self._add_health(methods)
        # Clients connect as soon as the server listens on a port that other servers share, so this comes last.
        self._server = self._accepting_server(methods)
        self._lower_polling_thread_priority()
        await self._listen()
        self._health_updates = asyncio.create_task(self._readiness.watch())
        await self._server.start()
        await self._listen_for_http()
        await self._start_metrics()
        self._start_debugging()
        self._start_background_tasks()
        if self.settings.frozen_garbage_collector:
            freeze_garbage_collector()
        log.info(
            "serving",
            host=self.settings.host,
            port=self.port,
            port_without_client_certificates=self._endpoints.port_without_client_certificates or None,
            http_port=self.http_port or None,
            metrics_port=self.metrics_port or None,
            unix_socket=self.settings.unix_socket and str(self.settings.unix_socket),
            tls=self.certificates is not None,
            accept_mode=self._server.accept_mode,
        )

    def _find_endpoints(self) -> None:
        try:
            require_http_protection(self.settings)
            require_metrics_protection(self.settings)
            self._endpoints = Endpoints(self.settings, has_identities=self.settings.has_identities)
        except (Exposed, CertificateError) as error:
            raise StartError(str(error)) from error

    def _start_background_tasks(self) -> None:
        running = [self._server.cancel_stalled_calls(self.settings.transfer_timeout, self._access_log.tasks)]
        if self.certificates:
            running.append(self.certificates.watch(self.settings.tls_reload_interval))
        if self._policies:
            running.append(self._policies.watch())
        if self.settings.scheduling == "adaptive":
            running.append(AdaptiveScheduling().run())
        self._background += map(asyncio.create_task, running)

    async def _open_database(self) -> None:
        settings = self.settings
        statements = self.metrics.statements if self.metrics else None
        replica = Replica(settings, statements) if settings.read_database_url else None
        self._order_messages = OrderMessageCache()
        encoders = MessageEncoders(order=self._order_messages.encode, user=encode_user)
        self.database = Database(
            settings,
            encoders if settings.encoded_messages else None,
            replica,
            prefers_replica=prefers_replica,
            time_left=time_left,
            batched_reads=settings.batched_reads,
            hold_connection=settings.held_connection,
            statements=statements,
        )
        if problem := await self.database.problem():
            await self.database.close()
            raise StartError(problem)
        if replica:
            await replica.start()
        await self.database.warm_up(min(settings.db_pool_min_size, settings.db_pool_size))
        self._snapshots = Snapshots(settings)
        self._event_feed = PollingEventFeed(settings, statements)

    async def _open_identities(self) -> None:
        self._identities = Identities(self.settings) if self.settings.has_identities else None
        if self._identities:
            if self.settings.client_certificates != "off" and self.settings.tls_client_ca_file is None:
                await self._close()
                raise StartError("COMMERCE_CLIENT_CERTIFICATES needs COMMERCE_TLS_CLIENT_CA_FILE, which asks for them")
            try:
                await self._identities.start()
            except IdentityError as error:
                await self._close()
                raise StartError(str(error)) from error

    def _read_policy(self) -> PolicyFile | None:
        if self.settings.policy_file is None:
            if self.settings.has_identities:
                raise StartError("no policy says what the callers may do: set COMMERCE_POLICY_FILE")
            return None
        if not self.settings.has_identities:
            raise StartError(
                "COMMERCE_POLICY_FILE is set, but callers have no identities: set COMMERCE_API_KEYS_FILE,"
                " COMMERCE_JWT_ISSUERS_FILE or COMMERCE_CLIENT_CERTIFICATES"
            )
        try:
            return PolicyFile(self.settings.policy_file)
        except PolicyError as error:
            raise StartError(str(error)) from error

    async def _signing_key(self) -> bytes:
        if configured := self.settings.signing_key:
            return signing_key_bytes(configured)
        if stored := await self.database.signing_key():
            return stored
        await self._close()
        raise StartError(MISSING_KEY)

    @property
    def _accepted_keys(self) -> Sequence[bytes]:
        other = self.settings.accepted_signing_key
        return (signing_key_bytes(other),) if other else ()

    def _interceptors(self, signing_key: bytes) -> InterceptedMethods:
        """Return the interceptor chain; the first interceptor is the outermost."""
        self.admission = (
            Admission(
                self.settings,
                maximum=self.settings.max_concurrent_calls,
                connections=self.settings.db_pool_size,
                without_connection=self._methods_without_connection(),
                likely_caller=self._identities.likely_name if self._identities else lambda _context: ANONYMOUS.name,
            )
            if self.settings.admission
            else None
        )
        calls = self.metrics.calls if self.metrics else None
        self._transactions = TransactionInterceptor(
            self.database.unit_of_work,
            fast_path=dict.fromkeys(FAST_PATH_METHODS, self.database.fast_path) if self.settings.fast_path else {},
            signing_keys=(signing_key, *self._accepted_keys),
            default_deadline=self.settings.default_deadline,
            read_preference=self.settings.read_preference,
            max_response_bytes=self.settings.max_response_bytes,
            calls=calls,
        )
        self._access_log = AccessLogInterceptor(calls)
        counts: list[Interceptor] = [MessageCountsInterceptor(calls)] if calls else []
        admission: list[Interceptor] = [AdmissionInterceptor(self.admission)] if self.admission else []
        self._authorization = AuthorizationInterceptor(self._policies)
        return InterceptedMethods(
            [
                self._access_log,  # sets the context of every call, and sees its final status code
                *counts,  # sees all messages of streams
                ErrorInterceptor(),  # turns every error raised below into a status, after the unit of work has ended
                # Who calls, before what it may do.
                AuthenticationInterceptor(
                    self._identities, self._authorization.require_act_for_users, self._open_services()
                ),
                self._authorization,  # before anything is read; denied calls cost little
                # Between what calls need for a fair turn, which is their caller, and what takes much time.
                *admission,
                # Inside ErrorInterceptor, which turns its error into a status; after admission, because it takes time.
                DeserializationInterceptor(self.settings.max_request_bytes_in_flight),
                # Knows the caller and the request, and sees the responses of all below it.
                UnreadResponsesInterceptor(self.settings.max_unread_response_bytes),
                ValidationInterceptor(),  # above the unit of work, so an invalid request takes no connection
                PrivilegedFieldsInterceptor(self._policies),  # reads fields, so after they are validated
                self._transactions,  # runs the method, and again if that is needed
                # Innermost: what it refuses is rolled back, and a repeated call is answered before it.
                OwnershipInterceptor(self.database.owner_queries if self._policies else None),
            ],
            self.admission,
        )

    def _methods_without_connection(self) -> Sequence[str]:
        return (
            *PASSWORD_METHODS,
            *(BATCHED_METHODS if self.settings.batched_reads else ()),
            *(FAST_PATH_METHODS if self.settings.fast_path else ()),
        )

    def _open_services(self) -> Sequence[str]:
        """Return how the paths of methods begin that need no caller."""
        reflection = self.settings.reflection
        is_open = reflection == "on" or (reflection == "auto" and self._policies is None)
        return ("/grpc.health.", "/grpc.reflection.") if is_open else ("/grpc.health.",)

    def _add_services(self, methods: InterceptedMethods, signing_key: bytes) -> None:
        page_tokens = PageTokens(signing_key, self.settings.max_response_bytes, self._accepted_keys)
        exports = Exports(
            self._snapshots,
            stall_seconds=self.settings.export_stall_timeout,
            max_response_bytes=self.settings.max_response_bytes,
        )
        self._imports = UserImports(
            self.database.unit_of_work,
            self.database.user_queries,
            self._passwords,
            _now,
            chunk_seconds=self.settings.default_deadline,
        )
        users = UserServicer(
            current_unit_of_work,
            self.database.user_queries,
            self.database.credit_queries,
            self._passwords,
            page_tokens,
            Watch(self._event_feed, Cursors(signing_key, USER_SERVICE, self._accepted_keys), watch_users_response),
            _now,
            sign_in_attempts=self.database.sign_in_attempts(signing_key, self._sign_in_delays()),
            device_tokens=DeviceTokens(signing_key, self._accepted_keys),
            imports=self._imports,
            exports=exports,
            max_response_bytes=self.settings.max_response_bytes,
        )
        orders = OrderServicer(
            current_unit_of_work,
            self.database.order_queries,
            self.database.note_queries,
            page_tokens,
            Watch(self._event_feed, Cursors(signing_key, ORDER_SERVICE, self._accepted_keys), watch_orders_response),
            _now,
            messages=self._order_messages,
            exports=exports,
            max_response_bytes=self.settings.max_response_bytes,
        )
        methods.add(add_UserServiceServicer_to_server, users)
        methods.add(add_OrderServiceServicer_to_server, orders)
        if self._serves_reflection():
            add_reflection(methods, [*SERVICES, HEALTH])

    def _serves_reflection(self) -> bool:
        reflection = self.settings.reflection
        return reflection != "off" and (reflection != "authenticated" or self.settings.has_identities)

    def _sign_in_delays(self) -> Sequence[float]:
        longest = self.settings.sign_in_max_delay
        return sign_in_delays(self.settings.sign_in_free_attempts, longest) if longest else ()

    async def _add_health(self, methods: InterceptedMethods) -> None:
        health = HealthServicer()
        methods.add(add_HealthServicer_to_server, health)
        no_answer = f"the database at {self.database.address} does not answer in time"
        self._readiness = Readiness(health, SERVICES, self.database.lasting_problem, no_answer)
        await self._readiness.start()

    def _accepting_server(self, methods: InterceptedMethods) -> AcceptingServer:
        return AcceptingServer(
            methods,
            channel_options(self.settings),
            accept_mode=self.settings.accept_mode,
            pending_accepts=self.settings.pending_accepts,
            max_calls=self.settings.max_concurrent_calls,
            max_connections=connections_that_fit(self.settings.max_connections),
            reuse_port=self.settings.reuse_port,
            counts=self.metrics.calls if self.metrics else None,
        )

    def _schedule_threads(self) -> None:
        # Before any other thread starts, because threads inherit the policy.
        if self.settings.scheduling == "batch":
            use_batch_scheduling()

    def _lower_polling_thread_priority(self) -> None:
        # After gRPC has started its thread.
        if self.settings.scheduling == "batch":
            lower_polling_thread_priority()

    async def _listen(self) -> None:
        try:
            self._endpoints.listen(self._server)
            self.http = http_port(
                self.settings,
                (*SERVICES, HEALTH),
                self.certificates,
                # That of callers with tokens or keys, as those of the HTTP port are.
                self._endpoints.port_without_client_certificates or self.port,
                require_status=StatusAccess(self._identities, self._policies, self._authorization.denials).require,
                status=self.metrics.status if self.metrics else None,
                open_pages=len(self._open_services()) > 1,
            )
            if self.http:
                # Not an endpoint: the connection of the HTTP port must not look like that of a client that stays.
                self._server.listen_on_socket(UnixSocket(self.http.socket, 0o600))
        except (CannotListen, HttpUnavailable, OSError) as error:
            await self._close()
            raise StartError(str(error)) from error

    async def _listen_for_http(self) -> None:
        # The last of all, because its calls go through the gRPC server.
        try:
            if self.http:
                await self.http.listen()
        except OSError as error:
            await self.stop(grace=0)
            address = f"{self.settings.http_host}:{self.settings.http_port}"
            raise StartError(
                f"cannot listen on {address} for HTTP: the port is in use, or this machine does not have the address"
            ) from error

    async def _start_metrics(self) -> None:
        if self.metrics is None:
            return
        await self.metrics.start(
            Parts(
                self.database,
                self._event_feed,
                self._passwords,
                self._readiness,
                self._server.refusals,
                self._authorization.denials,
                self.admission,
                self._identities,
                self._policies,
                self.certificates,
            )
        )
        # The parent of workers serves those of all.
        if self.settings.workers == 1:
            try:
                self._metrics_port = await listening_metrics_port(self.settings, self.metrics.take)
            except MetricsUnavailable as error:
                await self.stop(grace=0)
                raise StartError(str(error)) from error

    def _start_debugging(self) -> None:
        if self.settings.debug_socket and sys.platform == "linux":
            parts = DebuggedParts(
                self.database,
                self._event_feed,
                self._snapshots,
                self.admission,
                self._access_log,
                self._server,
                through_pgbouncer=self.settings.pgbouncer_mode == "transaction",
            )
            self._debugging = Debugging(parts, port=self.port, worker=self._worker, is_draining=lambda: self.draining)
            self._debugging.start()

    async def wait_until_signalled(self, signals: StopSignals) -> ExitDeadline:
        """Serve until the first signal, then drain; a second signal ends the process without draining.

        Returns the deadline that ends the process by force if it takes too long to end by itself.
        """
        await signals.first.wait()
        exit_deadline = self.exit_deadline()
        draining = asyncio.create_task(self.drain(signals.hint))
        waiting = asyncio.create_task(signals.second.wait())
        await asyncio.wait({draining, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if draining.done():
            # Raises the error if draining failed.
            draining.result()
        else:
            log.warning("second signal: stopping immediately")
            # Without waiting for running statements: PostgreSQL rolls back when it loses the connection.
            os._exit(1)
        return exit_deadline

    def exit_deadline(self) -> ExitDeadline:
        """Return a deadline for the end of the process, which begins to drain now."""
        return ExitDeadline(self._drain_seconds(), self._log_forced_exit)

    async def drain(self, hint: str | None = None) -> None:
        """Stop without failing a call; the log line `draining` has the hint.

        The server accepts no more connections. Clients that watch the health service leave on NOT_SERVING. The others
        are moved away by GOAWAY as their connections reach the maximum age, to which gRPC adds up to 10 % of jitter.
        After that, or as soon as no client is connected, no new calls arrive, so `stop` refuses none. It takes at most
        the time that the log line `draining` states.
        """
        self.draining = True
        if self.metrics:
            self.metrics.draining = True
        # First of all, so that none of the clients that leave comes back.
        self._endpoints.leave()
        if self.http:
            self.http.leave()
        log.info(
            "draining",
            connections=self._open_connections(),
            at_most_seconds=round(self._drain_seconds(), 1),
            **({"hint": hint} if hint else {}),
        )
        self._health_updates.cancel()
        await self._readiness.stop()
        await self._until_disconnected(leaving_seconds(self.settings.max_connection_age))
        await self.stop(grace=self.settings.shutdown_grace)

    def _open_connections(self) -> int | None:
        of_grpc, of_http = self._endpoints.open_connections(), self.http.open_connections() if self.http else 0
        return None if of_grpc is None else of_grpc + of_http

    def _drain_seconds(self) -> float:
        return drain_seconds(self.settings.max_connection_age, self.settings.shutdown_grace)

    async def _until_disconnected(self, seconds: float) -> None:
        """Wait until no client is connected, or for some seconds."""
        give_up = time.monotonic() + seconds
        # No new connection can come, because the server has stopped listening.
        while (left := give_up - time.monotonic()) > 0 and self._open_connections() != 0:  # noqa: ASYNC110 - gRPC reports no connection
            await asyncio.sleep(min(left, _CONNECTION_CHECK_SECONDS))

    async def stop(self, grace: float) -> None:
        """Refuse new calls, end watches, give other running calls `grace` seconds, and close all connections.

        Calls that have not ended by then are cancelled and logged. So are units of work that still run a second later,
        also those whose client has disconnected: PostgreSQL rolls them back. What can be neither ended nor closed in
        another second is left as it is.
        """
        self._health_updates.cancel()
        if self.http:
            self.http.finish()
        self._event_feed.drain()
        work = Deadline(grace + _WORK_SECONDS)
        # Before gRPC, which cancels them after the same time.
        logging_cut = asyncio.get_running_loop().call_later(grace, self._log_cut_calls)
        try:
            async with asyncio.timeout(grace + _CLOSE_SECONDS):
                await self._server.stop(grace)
                logging_cut.cancel()
                if self.http:
                    await self.http.until_finished(_RESPONSE_SECONDS)
                rolled_back = await self._transactions.drain(work) + await self._imports.drain(work)
                if rolled_back:
                    log.warning("rolled back work that did not end in time", units_of_work=rolled_back)
                await self._close(work)
        except TimeoutError:
            log.warning("stopping before everything has ended")
        log.info("stopped")

    def _log_cut_calls(self) -> None:
        if calls := self._access_log.running_calls():
            log.warning("cancelling calls that did not end in time", calls=calls)

    def _log_forced_exit(self) -> None:
        log.error("ending the process, because it did not end in time", calls=self._access_log.running_calls())

    async def _close(self, work: TimeLeft = no_deadline) -> None:
        self._endpoints.remove_socket()
        if self.http:
            await self.http.close()
        for task in self._background:
            task.cancel()
        if self.metrics:
            self.metrics.stop()
        # Both late, so that they show how the server drains.
        if self._metrics_port:
            await self._metrics_port.close()
        if self._debugging:
            self._debugging.close()
        if self._identities:
            await self._identities.close()
        self._passwords.close()
        await self._event_feed.close(work)
        await self._snapshots.close()
        await self.database.close(work)
        await self._passwords.drain()


def _require_fast_protobuf() -> None:
    if api_implementation.Type() == "python":
        raise StartError("protobuf runs on its pure-Python backend, which is many times slower; install its wheel")


def _now() -> datetime:
    return datetime.now(UTC)
