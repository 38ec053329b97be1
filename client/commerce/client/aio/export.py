"""Exports of an `AsyncClient`."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Generic, Self

from commerce.client.aio.streams import ResponseStream
from commerce.client.exports import ExportPosition, ExportProgress, ExportSettings, Resource
from commerce.client.streams import ExportOptions, Reconnects, retry_policy

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from commerce.client.aio.calls import Calls
    from commerce.client.methods import Method
    from commerce.client.options import Options


class AsyncExport(Generic[Resource]):
    """An export: iterate over it with `async for` for its resources, in the order of their creation.

    All are from one snapshot, unless the connection breaks: then the export is begun again after the last resource that
    has arrived, on another snapshot, in which what changed meanwhile has its new state. `resume=False` raises the error
    instead. No resource comes twice.

    `async with` ends it reliably when it is left early; without, it ends when nothing refers to it any longer.

    Raises:
        CommerceError: the export is refused, or could not be continued.
        ClientClosed: the client was closed before the end.
    """

    def __init__(
        self,
        calls: Calls,
        method: Method[Any, Any],
        field: str,
        filters: Mapping[str, Any],
        after: Resource | None,
        settings: ExportSettings,
        options: Options,
    ) -> None:
        self._position: ExportPosition[Resource] = ExportPosition(method, field, filters, after)
        self._report = settings.progress
        reconnects = Reconnects(
            retry_policy(options, kind=ExportOptions),
            calls.budget,
            first=settings.connect_timeout,
            later=settings.reconnect_timeout if settings.resume else 0.0,
        )
        self._stream: ResponseStream[Any] = ResponseStream(
            calls,
            method,
            self._position.request,
            options,
            reconnects,
            stall_seconds=settings.stall_timeout,
            endless=False,
        )
        self._waiting: deque[Resource] = deque()
        self._is_over = False

    @property
    def progress(self) -> ExportProgress:
        """How far it is."""
        return self._position.progress

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Resource:
        while not self._waiting:
            response = None if self._is_over else await self._stream.read()
            if response is None:
                self._is_over = True
                raise StopAsyncIteration
            self._waiting.extend(self._position.arrived(response))
            if self._report is not None:
                self._report(self._position.progress)
        return self._waiting.popleft()

    async def aclose(self) -> None:
        """End the export, also before all has arrived."""
        self._is_over = True
        self._waiting.clear()
        self._stream.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        # Of a constructor that failed, there may be no stream.
        if stream := getattr(self, "_stream", None):
            stream.close()
