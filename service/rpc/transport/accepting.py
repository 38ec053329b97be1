"""Accepts several calls from gRPC at the same time, which nearly halves the cost of a call under load.

A `grpc.aio` server has one pending accept per method. So calls that arrive together wait for one turn of the event
loop each, and for each of them gRPC's threads contend with the event loop for the GIL. There are two ways around this,
the accept modes:

- `calls`: request many calls of each method at the same time. This needs gRPC's private interface, so `auto` uses it
  only with the releases that the tests have run with. (With 64 calls in flight on 8 connections, GetUser takes 45 %
  less CPU than in gRPC's own way.)
- `listeners`: one process runs many servers on one port (SO_REUSEPORT), each with one pending accept per method.
  This needs public interfaces only; the kernel gives each connection to one of the servers. (26 % less, with 8 of
  each.)
  With one listener this is gRPC's own way.

In both modes, the number of calls in flight is limited here, where a call can still be refused before its request is
received. In the mode `calls`, so are calls that admission would refuse (`service.rpc.admission`), which costs half as
much as in an interceptor. Health is exempt: an orchestrator must not restart a server because it is busy. A call counts
until its client has read the response, so a client that neither sends nor reads would use up the limit;
`cancel_stalled_calls` ends its calls.
"""

import asyncio
import gc
import socket
from collections.abc import Awaitable, Callable, Collection, Sequence
from inspect import iscoroutine
from typing import Any, Literal, NoReturn, cast

import grpc
import structlog
from grpc._cython import cygrpc  # type: ignore[attr-defined] # not in the library's stubs

from service.application.ports.errors import Full
from service.observability.metrics.calls import Calls
from service.rpc.admission.refusals import Refusals, next_refusal
from service.rpc.interceptors.access_log import id_trailer
from service.rpc.interceptors.base import InterceptedMethods
from service.rpc.methods import Context, Handler, Request
from service.rpc.transport.listening import UnixSocket
from service.rpc.transport.tls import ServerCertificates

# Releases of grpcio with which all tests have passed in the mode `calls`.
TESTED_GRPC_VERSIONS = frozenset({"1.85.1", "1.85.3"})
_private: Any = cygrpc
AcceptMode = Literal["auto", "calls", "listeners"]
# How often calls are looked at, in the time that they may take.
_LOOKS = 4

log = structlog.get_logger()


def uses_private_interface(mode: AcceptMode) -> bool:
    """Return whether calls are accepted by gRPC's private interface."""
    return mode == "calls" or (mode == "auto" and grpc.__version__ in TESTED_GRPC_VERSIONS)


class _CallLimit(grpc.aio.ServerInterceptor):
    """Replaces the handlers of calls above a limit with handlers that refuse them.

    gRPC asks it about the calls that gRPC's own loop accepts, in the task that handles the call.

    Args:
        maximum: the maximum number of calls in flight.
        limited: the paths of the methods that have a limit.
        refusals: counts what is refused.
        counts: the counts of calls, for metrics.

    Attributes:
        calls: the tasks of the calls in flight.
        unlimited_calls: the tasks of those in flight that do not count: refused calls, and those of health.
    """

    def __init__(self, maximum: int, limited: Collection[str], refusals: Refusals, counts: Calls | None) -> None:
        self.calls: set[asyncio.Task[None]] = set()
        self.unlimited_calls: set[asyncio.Task[None]] = set()
        self._maximum = maximum
        self._limited = limited
        self._refusals = refusals
        self._counts = counts

    @property
    def reached(self) -> bool:
        """Whether no further call may start."""
        return len(self.calls) >= self._maximum

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Return the handler of a call."""
        path: Any = handler_call_details.method
        limited = path in self._limited
        refused = limited and self.reached
        calls = self.calls if limited and not refused else self.unlimited_calls
        task = cast("asyncio.Task[None]", asyncio.current_task())
        _keep(task, calls)
        if refused:
            if turn := self._refusals.turn(path, None, "calls"):
                await turn
            return _REFUSAL
        handler = await continuation(handler_call_details)
        if handler is None and self._counts is not None:
            # gRPC answers it.
            self._counts.unknown.refuse_unread("UNIMPLEMENTED", "", "")
        return handler


async def _refuse(_requests: Request, context: Context) -> NoReturn:
    refusal = next_refusal()
    await context.abort(refusal.code, refusal.message, (id_trailer(context), *refusal.trailers))


# It takes a stream of requests although most methods do not, because gRPC receives a single request before it calls the
# handler.
_REFUSAL: Handler = grpc.stream_unary_rpc_method_handler(_refuse)


class AcceptingServer:
    """One or more gRPC servers that serve the same methods on the same ports.

    Args:
        methods: the methods to serve.
        options: channel arguments of gRPC, without `grpc.so_reuseport`.
        accept_mode: how to accept calls (see above); `auto` is `calls` with a tested release of grpcio, else
            `listeners`.
        pending_accepts: the number of calls of each method to request at the same time, or of listeners.
        max_calls: the maximum number of calls in flight, without those of health.
        max_connections: the maximum number of connections, of which each listener has an equal share; None for any.
        reuse_port: whether other processes may listen on the port too.
        counts: the counts of calls, for metrics; None counts none.

    Attributes:
        accept_mode: how calls are accepted, `calls` or `listeners`.
        refusals: those of calls that are not read.
    """

    def __init__(  # noqa: PLR0913 - parts, and one switch for each addition
        self,
        methods: InterceptedMethods,
        options: Sequence[tuple[str, int]],
        *,
        accept_mode: AcceptMode,
        pending_accepts: int,
        max_calls: int,
        max_connections: int | None = None,
        reuse_port: bool,
        counts: Calls | None = None,
    ) -> None:
        private = uses_private_interface(accept_mode)
        self.accept_mode: AcceptMode = "calls" if private else "listeners"
        self._handlers = methods.handlers
        self._limited = methods.limited
        self._admission = methods.admission
        self._counts = counts
        self.refusals = Refusals(counts)
        self._limit = _CallLimit(max_calls, methods.limited, self.refusals, counts)
        self._requested_calls = pending_accepts if private else 0
        self._reuse_port = reuse_port
        listeners = 1 if private else pending_accepts
        # Set only if needed: with SO_REUSEPORT, a second process on the port shares it silently instead of
        # failing.
        shared = int(reuse_port or listeners > 1)
        options = [("grpc.so_reuseport", shared), *options]
        if max_connections is not None:
            options.append(("grpc.max_allowed_incoming_connections", -(-max_connections // listeners)))
        self._servers = [grpc.aio.server(interceptors=[self._limit], options=options) for _ in range(listeners)]
        for server in self._servers:
            self._add_methods(server)
        self._accepting: set[asyncio.Task[None]] = set()

    def _add_methods(self, server: grpc.aio.Server) -> None:
        for service, handlers in self._handlers.items():
            if self._requested_calls:
                server.add_registered_method_handlers(service, handlers)
            else:
                # Generic handlers, because gRPC's own loop goes through all registered methods for each call.
                server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))

    def listen(
        self,
        host: str,
        port: int,
        certificates: ServerCertificates | None = None,
        *,
        client_certificates: bool = False,
    ) -> int:
        """Listen on a TCP port, and return it.

        Args:
            host: the address.
            port: the port; 0 selects a free one.
            certificates: the certificates for TLS; None means plaintext.
            client_certificates: whether each client must have a certificate, too.

        Raises:
            OSError: the port is in use, or the machine does not have the address.
        """
        if len(self._servers) > 1 and not self._reuse_port:
            _require_free(host, port)
        for server in self._servers:
            address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            try:
                if certificates:
                    credentials = certificates.credentials(client_certificates=client_certificates)
                    port = server.add_secure_port(address, credentials)
                else:
                    port = server.add_insecure_port(address)
            except RuntimeError as error:
                raise OSError(f"cannot listen on {address}") from error
        return port

    def listen_on_socket(self, unix_socket: UnixSocket) -> None:
        """Listen on a Unix socket, with one of the listeners, because they cannot share it; raises OSError."""

        def bind(path: str) -> None:
            try:
                self._servers[0].add_insecure_port(f"unix:{path}")
            except RuntimeError as error:
                raise OSError("the folder does not exist, or this user may not write to it") from error

        unix_socket.listen(bind, replace=self._reuse_port)

    async def start(self) -> None:
        """Start serving."""
        for server in self._servers:
            await server.start()
        if self._requested_calls:
            (server,) = self._servers
            self._request_more_calls(cast("Any", server)._server)

    async def stop(self, grace: float) -> None:
        """Refuse new calls, and cancel running ones after `grace` seconds."""
        self.refusals.close()
        await asyncio.gather(*(server.stop(grace) for server in self._servers))
        # These tasks end by themselves: a stopped gRPC server fails their requests for calls.
        await asyncio.gather(*self._accepting)

    async def cancel_stalled_calls(self, seconds: float, running: Collection[asyncio.Task[Any]]) -> None:
        """Cancel calls whose clients do not send the request or do not read the response, until cancelled.

        Their deadlines do not end them: a client need not set one, and the server's own begins with the request.

        Args:
            seconds: how long a call may wait for its client each time; it takes up to a quarter more.
            running: the tasks of calls whose methods run. The methods have limits of their own, also for the streams
                that they read or write.
        """
        looks: dict[asyncio.Task[None], int] = {}
        while True:
            await asyncio.sleep(seconds / _LOOKS)
            calls = (self._limit.calls | self._limit.unlimited_calls).difference(running)
            looks = {call: looks.get(call, 0) + 1 for call in calls}
            if stalled := [call for call in calls if looks[call] > _LOOKS]:
                _cancel(stalled)
                if self._counts is not None:
                    self._counts.stalled += len(stalled)
                log.warning("cancelled calls whose clients neither sent nor read in time", calls=len(stalled))
                looks = {call: times for call, times in looks.items() if times <= _LOOKS}
            # Each reference to the task of a call keeps its memory.
            del calls, stalled

    def _request_more_calls(self, core: Any) -> None:
        """Request more calls of every unary method; gRPC's own loop goes on requesting one of each method."""
        for service, handlers in self._handlers.items():
            for name, handler in handlers.items():
                for _ in range(self._requested_calls if _is_unary(handler) else 0):
                    task = asyncio.create_task(self._accept_calls(core, f"/{service}/{name}", handler))
                    self._accepting.add(task)
                    task.add_done_callback(self._accepting.discard)

    async def _accept_calls(self, core: Any, path: str, handler: Handler) -> None:
        """Request calls of a method one after the other, and start each."""
        name, limited = path.encode(), path in self._limited
        calls = self._limit.calls if limited else self._limit.unlimited_calls
        while core.is_running():
            # Not assigned to a variable, which would keep the call alive until the next one arrives.
            try:
                self._start_call(await core._request_registered_call(name), path, handler, calls, limited=limited)
            except _private._RequestCallError:
                continue

    def _start_call(
        self, call: Any, path: str, handler: Handler, calls: set[asyncio.Task[None]], *, limited: bool
    ) -> None:
        """Start a call the way gRPC's own loop does after it has found the handler, unless it is refused."""
        loop = asyncio.get_running_loop()
        if limited:
            if self._limit.reached:
                self._refuse(call, path, None, "calls")
                return
            admission = self._admission
            if admission and admission.may_refuse(path):
                context = _private._ServicerContext(call, None, None, loop)
                caller = admission.likely_caller(context)
                if caller is not None and admission.refuses(path, caller, context.time_remaining()):
                    self._refuse(call, path, caller, "admission")
                    return
        handling = _private._handle_unary_unary_rpc(handler, call, loop)
        # The task in which the method runs, and not one that waits for it: `running` has it, and cancelling it ends the
        # method. gRPC gives it this name.
        handled = _private._handle_exceptions(call, handling, loop, path)
        task = loop.create_task(handled, name=f"HandleExceptions[{path}]")
        _keep(task, calls)
        loop.create_task(_private._handle_cancellation_from_core(task, call, loop))  # noqa: RUF006 - gRPC refers to it

    def _refuse(self, call: Any, path: str, caller: str | None, full: Full) -> None:
        """Answer a call that has not been read."""
        turn = self.refusals.turn(path, caller, full)
        _keep(asyncio.get_running_loop().create_task(_send_refusal(call, turn)), self._limit.unlimited_calls)


def _keep(task: asyncio.Task[None], tasks: set[asyncio.Task[None]]) -> None:
    """Keep a task until it ends: the event loop holds only weak references to tasks."""
    tasks.add(task)
    task.add_done_callback(tasks.discard)


def _cancel(calls: Collection[asyncio.Task[None]]) -> None:
    """Cancel calls, so that gRPC resets them and frees their memory.

    It does when no task has the call any more. Each call has two: the one that handles it, and one that waits for its
    client to cancel it. gRPC does not say which that is, but it refers to the other.
    """
    ids = set(map(id, calls))
    for task in asyncio.all_tasks():
        # gRPC's coroutines are not Python's, which are not looked into: those that keep calls refer to them, too.
        coroutine: Any = task.get_coro()
        if not iscoroutine(coroutine) and not ids.isdisjoint(map(id, gc.get_referents(*gc.get_referents(coroutine)))):
            task.cancel()
    for call in calls:
        call.cancel()


async def _send_refusal(call: Any, turn: asyncio.Future[None] | None) -> None:
    """Send nothing but the status, the way gRPC's own loop does for a call of a method that it does not know."""
    if turn:
        await turn
    loop, refusal = asyncio.get_running_loop(), next_refusal()
    trailers = (id_trailer(_private._ServicerContext(call, None, None, loop)), *refusal.trailers)
    metadata = _private.SendInitialMetadataOperation((), 0)
    try:
        await _private._send_error_status_from_server(call, refusal.number, refusal.message, trailers, metadata, loop)
    except grpc.aio.InternalError:
        # Its caller has gone.
        return


def _is_unary(handler: Handler) -> bool:
    return not (handler.request_streaming or handler.response_streaming)


def _require_free(host: str, port: int) -> None:
    """Raise OSError if the port is in use; needed because SO_REUSEPORT would share it with another process."""
    for family, kind, protocol, _, address in socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    ):
        with socket.socket(family, kind, protocol) as probe:
            # As servers do: the port is free although connections of a previous server are still in TIME_WAIT.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
