"""Takes calls from gRPC several at a time, which nearly halves what a call costs under load.

A `grpc.aio` server asks gRPC for one call of a method, and for the next one when it has been handed that. So calls that
arrive together wait for a turn of the event loop each, and the library's threads fight that loop for Python's lock once
for every call. Two ways out:

- `calls`: ask for many calls of each method at once. This needs gRPC's private interface, so it is for those releases
  that the tests have shown it with. (CPU for GetUser 0.55 of gRPC's own way, at 64 in flight on 8 connections.)
- `listeners`: many servers in one process that listen on one port (SO_REUSEPORT), each of which asks for one call. All
  of it is public; the kernel gives each connection to one of them. (0.74, with 8 of each.)
"""

import asyncio
import socket
from collections.abc import Sequence
from typing import Any, Literal, cast

import grpc
from grpc._cython import cygrpc  # type: ignore[attr-defined] # not in the library's stubs

from service.rpc.interceptors.base import InterceptedMethods
from service.rpc.methods import Handler

# Releases of grpcio with which all tests pass with `calls`.
TESTED_GRPC_VERSIONS = frozenset({"1.85.1", "1.85.3"})
_private: Any = cygrpc
Accept = Literal["auto", "calls", "listeners"]


def uses_private_interface(accept: Accept) -> bool:
    """Return whether calls are taken by gRPC's private interface."""
    return accept == "calls" or (accept == "auto" and grpc.__version__ in TESTED_GRPC_VERSIONS)


class AcceptingServer:
    """One or more gRPC servers that serve the same methods on one port.

    Args:
        methods: what to serve.
        options: of gRPC, without `grpc.so_reuseport`.
        accept: how to take calls (see above); `auto` is `calls` with a grpcio that is known to allow it.
        accepts: how many calls of each method, or how many listeners.
        reuse_port: whether other processes may listen on the port too.

    Attributes:
        accept: how calls are taken, `calls` or `listeners`.
    """

    def __init__(
        self,
        methods: InterceptedMethods,
        options: Sequence[tuple[str, int]],
        *,
        accept: Accept,
        accepts: int,
        reuse_port: bool,
    ) -> None:
        private = uses_private_interface(accept)
        self.accept: Accept = "calls" if private else "listeners"
        self._handlers = methods.handlers
        self._accepts = accepts if private else 0
        self._reuse_port = reuse_port
        listeners = 1 if private else accepts
        # Without SO_REUSEPORT a second server is told that the port is taken; with it, both would share it silently.
        shared = int(reuse_port or listeners > 1)
        self._servers = [grpc.aio.server(options=[("grpc.so_reuseport", shared), *options]) for _ in range(listeners)]
        for server in self._servers:
            self._add_methods(server)
        self._accepting: set[asyncio.Task[None]] = set()
        self._calls: set[asyncio.Task[None]] = set()

    def _add_methods(self, server: grpc.aio.Server) -> None:
        for service, handlers in self._handlers.items():
            if self._accepts:
                server.add_registered_method_handlers(service, handlers)
            else:
                # Unregistered: for one call, gRPC's own loop looks at every registered method.
                server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))

    def listen(self, host: str, port: int) -> int:
        """Return the port that is listened on: a free one for 0; raises OSError."""
        if len(self._servers) > 1 and not self._reuse_port:
            _require_free(host, port)
        for server in self._servers:
            address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            try:
                port = server.add_insecure_port(address)
            except RuntimeError as error:
                raise OSError(f"cannot listen on {address}") from error
        return port

    async def start(self) -> None:
        """Serve."""
        for server in self._servers:
            await server.start()
        if self._accepts:
            (server,) = self._servers
            self._accept_more(cast("Any", server)._server)

    async def stop(self, grace: float) -> None:
        """Refuse new calls, and give running ones so many seconds."""
        await asyncio.gather(*(server.stop(grace) for server in self._servers))
        # They end by themselves, as gRPC refuses to give them another call.
        await asyncio.gather(*self._accepting)

    def _accept_more(self, core: Any) -> None:
        """Ask for more calls of every method that answers once; gRPC's own loop goes on asking for one of each."""
        for service, handlers in self._handlers.items():
            for name, handler in handlers.items():
                for _ in range(self._accepts if _answers_once(handler) else 0):
                    task = asyncio.create_task(self._accept(core, f"/{service}/{name}", handler))
                    self._accepting.add(task)
                    task.add_done_callback(self._accepting.discard)

    async def _accept(self, core: Any, path: str, handler: Handler) -> None:
        """Take calls of a method and start them."""
        name = path.encode()
        while core.is_running():
            # In no variable: there, the last call would stay until the next comes.
            try:
                self._start(await core._request_registered_call(name), path, handler)
            except _private._RequestCallError:
                continue

    def _start(self, call: Any, path: str, handler: Handler) -> None:
        """Start a call, as the library's own loop does once it has found the handler."""
        loop = asyncio.get_running_loop()
        answer = _private._handle_unary_unary_rpc(handler, call, loop)
        task = loop.create_task(_private._schedule_rpc_coro(answer, call, loop, path))
        # Loops only hold tasks weakly.
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)


def _answers_once(handler: Handler) -> bool:
    return not (handler.request_streaming or handler.response_streaming)


def _require_free(host: str, port: int) -> None:
    for family, kind, protocol, _, address in socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    ):
        with socket.socket(family, kind, protocol) as probe:
            # As a server would, though connections to the last one still linger.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
