"""`client.orders` of an `AsyncClient`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from commerce.client.aio.export import AsyncExport
from commerce.client.aio.watch import AsyncWatch
from commerce.client.exports import ExportSettings
from commerce.client.generated import methods
from commerce.client.generated.aio_orders import AsyncOrderMethods
from commerce.client.watches import Start, WatchSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Unpack

    from google.type import interval_pb2

    from commerce.client.cursors import AsyncCursorStore, CursorStore
    from commerce.client.exports import ExportProgress
    from commerce.client.generated import types
    from commerce.client.generated.types import Interval
    from commerce.client.streams import ExportOptions, StreamOptions
    from commerce.client.values import Id
    from commerce.orders.v1 import order_pb2


class AsyncOrders(AsyncOrderMethods):
    """The methods of `commerce.orders.v1.OrderService`; those of its base class are generated from the protos."""

    def watch(  # noqa: PLR0913 - the filters of the method, and how the watch behaves
        self,
        *,
        start: Start = "now",
        cursor: str | None = None,
        cursor_store: CursorStore | AsyncCursorStore | None = None,
        user_ids: Iterable[Id] | None = None,
        statuses: Iterable[types.OrderStatusValue] | None = None,
        save_interval: float = 0.0,
        stall_timeout: float = 30.0,
        connect_timeout: float | None = 30.0,
        reconnect_timeout: float | None = None,
        **options: Unpack[StreamOptions],
    ) -> AsyncWatch[order_pb2.OrderEvent]:
        """Watch the events of orders: iterate over the result with `async for`.

        It goes on after lost connections and restarted servers, without gaps and without repeating an event; each event
        is delivered at least once over several runs of the program. docs/events.md explains cursors.

        Args:
            start: where the watch starts if there is no cursor: with the events that are committed from now on, or with
                the earliest that is stored.
            cursor: start after the response that had this cursor, instead of the stored one.
            cursor_store: where the cursor is stored when an event has been handled, and found when the program runs
                again. None stores it nowhere.
            user_ids: only events of orders that belong to one of these users, at most 100.
            statuses: only events after which the order was in one of these statuses.
            save_interval: seconds between two cursors that are stored; 0 stores each. After a crash, events since the
                stored cursor come again.
            stall_timeout: seconds without an event and without a checkpoint, which servers send every five seconds by
                default, after which the connection is given up for another one.
            connect_timeout: seconds to wait for the first response; None for no limit.
            reconnect_timeout: seconds to wait until a watch that has worked goes on; None for no limit.
            options: of the calls.

        Raises:
            ValueError: an argument has a wrong value.
            TypeError: there is no such option.
        """
        settings = WatchSettings(start, cursor, save_interval, stall_timeout, connect_timeout, reconnect_timeout)
        filters = {"user_ids": user_ids, "statuses": statuses}
        return AsyncWatch(self._calls, methods.WATCH_ORDERS, filters, settings, cursor_store, options)

    def export(  # noqa: PLR0913 - the filters of the method, and how the export behaves
        self,
        *,
        user_id: Id | None = None,
        statuses: Iterable[types.OrderStatusValue] | None = None,
        create_time: Interval | interval_pb2.Interval | None = None,
        tags_any: Iterable[str] | None = None,
        tags_all: Iterable[str] | None = None,
        after: order_pb2.Order | None = None,
        resume: bool = True,
        progress: Callable[[ExportProgress], object] | None = None,
        stall_timeout: float = 60.0,
        connect_timeout: float | None = 60.0,
        reconnect_timeout: float | None = 60.0,
        **options: Unpack[ExportOptions],
    ) -> AsyncExport[order_pb2.Order]:
        """Export all matching orders, in the order of their creation: iterate over the result with `async for`.

        All are from one consistent snapshot, unless the export has to be begun again; see `resume`.

        Args:
            user_id: only orders of this user.
            statuses: only orders in one of these statuses.
            create_time: only orders created at or after the first and before the second time; either can be None.
            tags_any: only orders with at least one of these tags.
            tags_all: only orders with all of these tags.
            after: go on after this order, the last one that an earlier export has delivered, on another snapshot. Those
                created in the same microsecond can come again.
            resume: whether the export is begun again, after the last order that has arrived, if its connection breaks
                or it was read too slowly; what follows is then from another snapshot. If not, the error is raised.
            progress: called after each batch has arrived.
            stall_timeout: seconds without a batch after which the connection is given up.
            connect_timeout: seconds to wait for the first batch; None for no limit.
            reconnect_timeout: seconds to wait until an export that broke goes on; None for no limit.
            options: of the calls.

        Raises:
            ValueError: an argument has a wrong value.
            TypeError: there is no such option.
        """
        settings = ExportSettings(resume, progress, stall_timeout, connect_timeout, reconnect_timeout)
        filters = {
            "user_id": user_id,
            "statuses": statuses,
            "create_time": create_time,
            "tags_any": tags_any,
            "tags_all": tags_all,
        }
        return AsyncExport(self._calls, methods.EXPORT_ORDERS, "orders", filters, after, settings, options)
