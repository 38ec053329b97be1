"""Where an export is: what has arrived, and the request that goes on after it. Both clients share it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from commerce.client.messages import make_request
from commerce.client.values import to_datetime

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from google.protobuf.message import Message
    from google.protobuf.timestamp_pb2 import Timestamp

    from commerce.client.methods import Method


class _Resource(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def create_time(self) -> Timestamp: ...


Resource = TypeVar("Resource", bound=_Resource)


@dataclass(frozen=True, slots=True)
class ExportProgress:
    """How far an export is.

    Attributes:
        count: of the resources that have arrived.
        create_time: of the last one; None before the first.
        resumed: how many times the export was begun again, after the last resource. Each time, what follows is from
            another snapshot.
    """

    count: int
    create_time: datetime | None
    resumed: int


@dataclass(frozen=True, slots=True)
class ExportSettings:
    """How an export behaves.

    Attributes:
        resume: whether it is begun again, after the last resource, when its connection breaks.
        progress: called after each batch has arrived.
        stall_timeout: seconds without a batch after which the connection is given up.
        connect_timeout: seconds to wait for the first batch; None for no limit.
        reconnect_timeout: seconds to wait until an export that broke goes on; None for no limit.
    """

    resume: bool
    progress: Callable[[ExportProgress], object] | None
    stall_timeout: float
    connect_timeout: float | None
    reconnect_timeout: float | None

    def __post_init__(self) -> None:
        if not self.stall_timeout > 0:
            raise ValueError("stall_timeout must be greater than 0")


class ExportPosition(Generic[Resource]):
    """The position of one export. Resources come in the order of their creation.

    Attributes:
        progress: how far it is.
    """

    def __init__(
        self, method: Method[Any, Any], field: str, filters: Mapping[str, Any], after: Resource | None
    ) -> None:
        self._request = make_request(method.request, filters)
        self._field = field
        self._last: Timestamp | None = None
        # The ids of those that were created at the time of the last one: they come again.
        self._known: set[str] = set()
        self._resuming = False
        self.progress = ExportProgress(0, None, 0)
        if after is not None:
            self._note(after)

    def request(self) -> Message:
        """Return the request that begins with what has not arrived, or was created at the time of the last one."""
        if self._last is not None:
            self._request.create_time.start_time.CopyFrom(self._last)
        # An attempt that fails is no further snapshot.
        self._resuming = self.progress.count > 0
        request: Message = self._request
        return request

    def arrived(self, response: Any) -> Sequence[Resource]:
        """Note a response, and return its resources without those that have arrived before."""
        new = []
        for resource in getattr(response, self._field):
            if resource.create_time == self._last and resource.id in self._known:
                continue
            self._note(resource)
            new.append(resource)
        count = self.progress.count + len(new)
        resumed = self.progress.resumed + self._resuming
        self._resuming = False
        self.progress = ExportProgress(count, self._last and to_datetime(self._last), resumed)
        return new

    def _note(self, resource: Resource) -> None:
        if resource.create_time != self._last:
            self._last = resource.create_time
            self._known.clear()
        self._known.add(resource.id)
