"""Watches of a `Client`."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, Self

from commerce.client.cursors import CursorStore, MemoryCursorStore
from commerce.client.lifecycle import ClientClosed
from commerce.client.streams import Reconnects, retry_policy
from commerce.client.sync.streams import ResponseStream
from commerce.client.watches import Event, WatchPosition, WatchSettings

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from commerce.client.methods import Method
    from commerce.client.options import Options
    from commerce.client.sync.calls import Calls


class Watch(Generic[Event]):
    """A watch: iterate over it with `for` for its events.

    It goes on after lost connections and restarted servers, without gaps and without repeating an event. The cursor of
    an event is stored when the next one is asked for, which says that the event has been handled: a program that fails
    in between receives it again when it runs the next time (at least once).

    The iteration ends when the watch or the client is closed, also by another thread. `with` closes it reliably;
    without, it is closed when nothing refers to it any longer.

    Raises:
        CursorExpired: events after the cursor have been deleted, so that there is a gap. Read the resources themselves,
            call `continue_from(error.earliest)`, and iterate again: events that were delivered before are left out.
        CommerceError: the watch is refused, or could not be continued in time.
    """

    def __init__(
        self,
        calls: Calls,
        method: Method[Any, Any],
        filters: Mapping[str, Any],
        settings: WatchSettings,
        store: CursorStore | None,
        options: Options,
    ) -> None:
        self._store = store or MemoryCursorStore()
        self._position: WatchPosition[Event] = WatchPosition(method, filters, settings)
        reconnects = Reconnects(
            retry_policy(options),
            calls.budget,
            first=settings.connect_timeout,
            later=settings.reconnect_timeout,
        )
        self._stream: ResponseStream[Any] = ResponseStream(
            calls,
            method,
            self._position.request,
            options,
            reconnects,
            stall_seconds=settings.stall_timeout,
            endless=True,
        )
        self._is_loaded = settings.cursor is not None
        self._first: Any = None

    @property
    def cursor(self) -> str | None:
        """The cursor of the last event, for programs that store it with their own data; None before the first."""
        return self._position.cursor

    def continue_from(self, cursor: str) -> None:
        """Go on after this cursor, for example `CursorExpired.earliest`. Call it while nothing waits for an event."""
        self._stream.restart()
        self._position.continue_from(cursor)
        self._is_loaded, self._first = True, None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        try:
            while True:
                # The caller, which asks for the next event, has handled all before.
                self._position.handled()
                self._save()
                if (event := self._position.arrived(self._response())) is not None:
                    return event
        except ClientClosed:
            self._save(closing=True)
            raise StopIteration from None

    def commit(self) -> None:
        """Store the cursor of the last event now, as handled, and do not wait for `save_interval`."""
        self._position.handled()
        self._save(closing=True)

    def close(self) -> None:
        """End the watch, and store the cursor of the last event that is known to be handled."""
        self._stream.close()
        self._save(closing=True)

    def __enter__(self) -> Self:
        """Wait for the first response: no event that is committed from now on is missed."""
        with suppress(ClientClosed):  # then there is nothing to iterate over
            self._first = self._response()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # Of a constructor that failed, there may be no stream.
        if stream := getattr(self, "_stream", None):
            stream.close()

    def _response(self) -> Any:
        if self._first is not None:
            first, self._first = self._first, None
            return first
        if not self._is_loaded:
            if (cursor := self._store.load()) is not None:
                self._position.continue_from(cursor)
                self._position.saved(cursor)
            self._is_loaded = True
        return self._stream.read()

    def _save(self, *, closing: bool = False) -> None:
        cursor = self._position.to_save(closing=closing)
        if cursor is not None:
            self._store.save(cursor)
            self._position.saved(cursor)
