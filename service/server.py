"""The server: builds everything, serves, and drains on SIGTERM. Reads top to bottom."""

import asyncio
import os
import signal
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import ip_address

import structlog
from commerce.orders.v1.order_service_pb2_grpc import add_OrderServiceServicer_to_server
from commerce.users.v1.user_service_pb2_grpc import add_UserServiceServicer_to_server
from google.protobuf.internal import api_implementation
from grpc_health.v1.health import SERVICE_NAME as HEALTH
from grpc_health.v1.health import aio
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server

from service.config import ServerSettings
from service.db.connections.replica import Replica
from service.db.database import Database
from service.db.events.feed import PollingEventFeed
from service.db.reads.snapshots import Snapshots
from service.db.writes.encoded_messages import MessageEncoders
from service.observability.logs import log_loop_failure
from service.passwords import Argon2Passwords
from service.rpc.call_context import current_unit_of_work, prefers_replica
from service.rpc.health import Readiness
from service.rpc.interceptors.access_log import AccessLogInterceptor
from service.rpc.interceptors.base import InterceptedMethods
from service.rpc.interceptors.deserialization import DeserializationInterceptor
from service.rpc.interceptors.errors import ErrorInterceptor
from service.rpc.interceptors.transaction import TransactionInterceptor
from service.rpc.interceptors.validation import ValidationInterceptor
from service.rpc.messages.orders import OrderMessageCache, encode_order, watch_orders_response
from service.rpc.messages.users import encode_user, watch_users_response
from service.rpc.reflection import add_reflection
from service.rpc.servicers.orders import OrderServicer
from service.rpc.servicers.users import UserServicer
from service.rpc.signing.cursors import Cursors
from service.rpc.signing.page_tokens import PageTokens
from service.rpc.streams.exports import Exports
from service.rpc.streams.imports import UserImports
from service.rpc.streams.watch import Watch
from service.rpc.transport import shared_port
from service.rpc.transport.accepting import AcceptingServer
from service.rpc.transport.scheduling import freeze_garbage_collector, lower_poller_priority, use_batch_scheduling

# What all that write to a database keep there.
MESSAGE_ENCODERS = MessageEncoders(order=encode_order, user=encode_user)
# The methods that write one order and nothing else: with luck, one statement.
FAST_PATH_METHODS = tuple(
    f"/commerce.orders.v1.OrderService/{name}"
    for name in ("CreateOrder", "ConfirmOrder", "ProcessOrder", "ShipOrder", "DeliverOrder", "CancelOrder")
)
SERVICES = ("commerce.users.v1.UserService", "commerce.orders.v1.OrderService")

log = structlog.get_logger()


class StartError(Exception):
    """The server cannot start; the message is one line for an operator."""


class Server:
    """One serving process: `start`, then `wait_until_signalled`, or `stop` at any time."""

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self.port = 0

    async def start(self) -> None:
        """Build everything and listen.

        Raises:
            StartError: the database cannot be used, or the port cannot be had.
        """
        if api_implementation.Type() == "python":
            raise StartError("protobuf runs on its pure-Python backend, which is many times slower; install its wheel")
        settings = self.settings
        if settings.scheduling == "batch":
            use_batch_scheduling()
        asyncio.get_running_loop().set_exception_handler(log_loop_failure)

        # The database.
        replica = Replica(settings) if settings.read_database_url else None
        order_messages = OrderMessageCache()
        encoders = replace(MESSAGE_ENCODERS, order=order_messages.encode)
        self.store = Database(settings, encoders, replica, prefers_replica=prefers_replica)
        if problem := await self.store.problem():
            await self.store.close()
            raise StartError(problem)
        if replica:
            await replica.start()
        self._snapshots = Snapshots(settings)
        self._tail = PollingEventFeed(settings)
        configured_key = settings.signing_key
        key = configured_key.get_secret_value().encode() if configured_key else await self.store.signing_key()

        # The chain: the first is the outermost.
        self._passwords = Argon2Passwords(settings)
        self._session = TransactionInterceptor(
            self.store.unit_of_work,
            fast_path=dict.fromkeys(FAST_PATH_METHODS, self.store.fast_path) if settings.fast_path else {},
            signing_key=key,
            default_deadline=settings.default_deadline,
            read_preference=settings.read_preference,
            max_response_bytes=settings.max_response_bytes,
        )
        methods = InterceptedMethods(
            [
                AccessLogInterceptor(),  # sets the context of every call, and sees the code that it ends with
                ErrorInterceptor(),  # answers whatever fails below it, after the unit of work has ended
                DeserializationInterceptor(),  # below the errors, which answer what it refuses
                ValidationInterceptor(),  # only valid messages get further, so bad ones cost no connection
                self._session,  # innermost: runs the method, anew if it must
            ]
        )

        # The services.
        page_tokens = PageTokens(key)
        self._imports = UserImports(
            self.store.unit_of_work,
            self.store.user_queries,
            self._passwords,
            _now,
            chunk_seconds=settings.default_deadline,
        )
        exports = Exports(self._snapshots, stall_seconds=settings.export_stall_timeout)
        users = UserServicer(
            current_unit_of_work,
            self.store.user_queries,
            self.store.credit_queries,
            self._passwords,
            page_tokens,
            Watch(self._tail, Cursors(key, "commerce.users.v1.UserService"), watch_users_response),
            _now,
            imports=self._imports,
            exports=exports,
        )
        orders = OrderServicer(
            current_unit_of_work,
            self.store.order_queries,
            self.store.note_queries,
            page_tokens,
            Watch(self._tail, Cursors(key, "commerce.orders.v1.OrderService"), watch_orders_response),
            _now,
            messages=order_messages,
            exports=exports,
        )
        health = aio.HealthServicer()
        methods.add(add_UserServiceServicer_to_server, users)
        methods.add(add_OrderServiceServicer_to_server, orders)
        methods.add(add_HealthServicer_to_server, health)
        add_reflection(methods, [*SERVICES, HEALTH])

        # The port, last: on one that others share, connections come as soon as it is listened on.
        self._readiness = Readiness(health, SERVICES, self.store.problem)
        await self._readiness.start()
        self._server = AcceptingServer(
            methods,
            _options(settings),
            accept=settings.accept_mode,
            accepts=settings.pending_accepts,
            reuse_port=settings.reuse_port,
        )
        if settings.scheduling == "batch":
            lower_poller_priority()
        await self._listen()
        self._watch = asyncio.create_task(self._readiness.watch())
        await self._server.start()
        freeze_garbage_collector()
        log.info("serving", host=settings.host, port=self.port, accept=self._server.accept)

    async def _listen(self) -> None:
        host, port = self.settings.host, self.settings.port
        try:
            self.port = self._server.listen(host, port)
        except OSError as error:
            await self._close()
            raise StartError(
                f"cannot listen on {host}:{port}: the port is in use, or the address is not of this machine"
            ) from error
        if not _is_loopback(host):
            log.warning(
                "listening beyond this machine without TLS: anyone who reaches the port can do everything", host=host
            )

    async def wait_until_signalled(self) -> None:
        """Serve until SIGTERM or SIGINT, then drain; a second signal cuts that short."""
        loop = asyncio.get_running_loop()
        first, second = asyncio.Event(), asyncio.Event()

        def on_signal() -> None:
            (second if first.is_set() else first).set()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, on_signal)
        await first.wait()
        draining = asyncio.create_task(self.drain())
        waiting = asyncio.create_task(second.wait())
        await asyncio.wait({draining, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if draining.done():
            # Raises what went wrong with it.
            draining.result()
        else:
            log.warning("second signal: stopping at once")
            # Not even waiting for statements that run: PostgreSQL rolls back what a lost connection leaves.
            os._exit(1)

    async def drain(self) -> None:
        """Stop without failing a call.

        Callers that watch our health leave on NOT_SERVING. The others are led away by the end of their connection's
        age, which gRPC spreads by a tenth: only after that does nothing new arrive, and `stop` has nothing to refuse.
        """
        if self.settings.reuse_port:
            shared_port.leave(self.port)
        log.info("draining")
        self._watch.cancel()
        await self._readiness.stop()
        await asyncio.sleep(1.1 * self.settings.max_connection_age)
        await self.stop(grace=self.settings.shutdown_grace)

    async def stop(self, grace: float) -> None:
        """Refuse new calls, end watches, give other running ones `grace` seconds, and close everything."""
        self._watch.cancel()
        self._tail.drain()
        await self._server.stop(grace)
        # Work whose caller has gone still ends before its connection is closed.
        await self._session.drain()
        await self._imports.drain()
        await self._close()
        log.info("stopped")

    async def _close(self) -> None:
        self._passwords.close()
        await self._tail.close()
        await self._snapshots.close()
        await self.store.close()


def _options(settings: ServerSettings) -> list[tuple[str, int]]:
    options = [
        ("grpc.max_receive_message_length", settings.max_request_bytes),
        ("grpc.max_send_message_length", settings.max_response_bytes),
        # Without a limit one connection can start more calls than the memory holds.
        ("grpc.max_concurrent_streams", settings.max_concurrent_streams),
        # A caller that vanished is noticed after about 13 s; only with both time-outs.
        ("grpc.keepalive_time_ms", 10_000),
        ("grpc.keepalive_timeout_ms", 3_000),
        ("grpc.http2.ping_timeout_ms", 3_000),
        # Callers may ping every 10 s, also while they have no call.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ]
    if settings.max_connection_age:
        # No grace with it: a call that is under way ends on the old connection, however long it takes.
        options.append(("grpc.max_connection_age_ms", int(settings.max_connection_age * 1000)))
    return options


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _now() -> datetime:
    return datetime.now(UTC)
