"""`client.users` of an `AsyncClient`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from commerce.client.aio.export import AsyncExport
from commerce.client.aio.imports import import_users
from commerce.client.aio.watch import AsyncWatch
from commerce.client.exports import ExportSettings
from commerce.client.generated import methods
from commerce.client.generated.aio_users import AsyncUserMethods
from commerce.client.imports import UserImport
from commerce.client.watches import Start, WatchSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Iterable
    from typing import Unpack

    from google.type import interval_pb2

    from commerce.client.cursors import AsyncCursorStore, CursorStore
    from commerce.client.exports import ExportProgress
    from commerce.client.generated import types
    from commerce.client.generated.types import Interval
    from commerce.client.imports import ImportProgress, Row
    from commerce.client.streams import ExportOptions, StreamOptions
    from commerce.client.values import Id
    from commerce.users.v1 import user_pb2


class AsyncUsers(AsyncUserMethods):
    """The methods of `commerce.users.v1.UserService`; those of its base class are generated from the protos."""

    def watch(  # noqa: PLR0913 - the filters of the method, and how the watch behaves
        self,
        *,
        start: Start = "now",
        cursor: str | None = None,
        cursor_store: CursorStore | AsyncCursorStore | None = None,
        user_ids: Iterable[Id] | None = None,
        types: Iterable[types.UserEventTypeValue] | None = None,
        save_interval: float = 0.0,
        stall_timeout: float = 30.0,
        connect_timeout: float | None = 30.0,
        reconnect_timeout: float | None = None,
        **options: Unpack[StreamOptions],
    ) -> AsyncWatch[user_pb2.UserEvent]:
        """Watch the events of users: iterate over the result with `async for`.

        It goes on after lost connections and restarted servers, without gaps and without repeating an event; each event
        is delivered at least once over several runs of the program. docs/events.md explains cursors.

        Args:
            start: where the watch starts if there is no cursor: with the events that are committed from now on, or with
                the earliest that is stored.
            cursor: start after the response that had this cursor, instead of the stored one.
            cursor_store: where the cursor is stored when an event has been handled, and found when the program runs
                again. None stores it nowhere.
            user_ids: only events of these users, at most 100.
            types: only events of these types.
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
        filters = {"user_ids": user_ids, "types": types}
        return AsyncWatch(self._calls, methods.WATCH_USERS, filters, settings, cursor_store, options)

    def export(  # noqa: PLR0913 - the filters of the method, and how the export behaves
        self,
        *,
        states: Iterable[types.UserStateValue] | None = None,
        create_time: Interval | interval_pb2.Interval | None = None,
        superuser: bool | None = None,
        show_deleted: bool | None = None,
        after: user_pb2.User | None = None,
        resume: bool = True,
        progress: Callable[[ExportProgress], object] | None = None,
        stall_timeout: float = 60.0,
        connect_timeout: float | None = 60.0,
        reconnect_timeout: float | None = 60.0,
        **options: Unpack[ExportOptions],
    ) -> AsyncExport[user_pb2.User]:
        """Export all matching users, in the order of their creation: iterate over the result with `async for`.

        All are from one consistent snapshot, unless the export has to be begun again; see `resume`.

        Args:
            states: only users in one of these states; by default all that are not deleted.
            create_time: only users created at or after the first and before the second time; either can be None.
            superuser: only superusers, or only others.
            show_deleted: also deleted users, if no states are given.
            after: go on after this user, the last one that an earlier export has delivered, on another snapshot. Those
                created in the same microsecond can come again.
            resume: whether the export is begun again, after the last user that has arrived, if its connection breaks
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
            "states": states,
            "create_time": create_time,
            "superuser": superuser,
            "show_deleted": show_deleted,
        }
        return AsyncExport(self._calls, methods.EXPORT_USERS, "users", filters, after, settings, options)

    async def import_(
        self,
        rows: Iterable[Row] | AsyncIterable[Row],
        *,
        on_conflict: types.UserImportOnConflictValue = "SKIP",
        resume_from: int = 1,
        progress: Callable[[ImportProgress], object] | None = None,
        reconnect_timeout: float | None = 60.0,
        **options: Unpack[StreamOptions],
    ) -> ImportProgress:
        """Import users, in calls of a thousand rows; a call that breaks is sent again.

        A row is identified by its e-mail address, so with SKIP and UPDATE the same rows can be sent any number of
        times. Rows that a call had created before it broke are counted as skipped. With FAIL, a call is sent again only
        if it is known to have written nothing.

        Args:
            rows: the users, as messages or dicts, for example from a generator; read a thousand at a time.
            on_conflict: what happens to a row whose e-mail address a user has already.
            resume_from: the number of the first row to send, from 1; those before it are read and left out.
            progress: called after each call, with the rows that were not imported.
            reconnect_timeout: seconds to wait until a call that broke succeeds; None for no limit.
            options: of the calls.

        Returns:
            The counts, and the first thousand rows that were not imported.

        Raises:
            CommerceError: the import has stopped; go on with `resume_from=error.last_committed_row + 1`.
            RowError: a row cannot be sent.
            ValueError: an argument has a wrong value.
            TypeError: there is no such option.
        """
        state = UserImport(on_conflict, resume_from, progress)
        return await import_users(self._calls, rows, state, options, reconnect_timeout)
