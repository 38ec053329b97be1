"""What the services of a `Client` have in common."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from commerce.client.batches import chunks, halves
from commerce.client.errors import ResponseTooLarge
from commerce.client.messages import make_create_request, make_request, make_update_request
from commerce.client.options import merged
from commerce.client.sync.pages import Pages

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from google.protobuf.message import Message

    from commerce.client.methods import Method, Request, Response
    from commerce.client.options import Options
    from commerce.client.sync.calls import Calls
    from commerce.client.values import Id


class Service:
    """The base of the services of a `Client`."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def _call(self, method: Method[Request, Response], fields: Mapping[str, Any], options: Options) -> Response:
        return self._calls.call(method, make_request(method.request, fields), options)

    def _create(
        self,
        method: Method[Request, Response],
        resource: str,
        message: Message | None,
        changes: Mapping[str, Any],
        fields: Mapping[str, Any],
        options: Options,
    ) -> Response:
        request = make_create_request(method.request, resource, message, changes, fields)
        return self._calls.call(method, request, options)

    def _update(
        self,
        method: Method[Request, Response],
        resource: str,
        target: Message | Id,
        changes: Mapping[str, Any],
        fields: Mapping[str, Any],
        options: Options,
    ) -> Response:
        request = make_update_request(method.request, resource, target, changes, fields)
        return self._calls.call(method, request, options)

    def _pages(self, method: Method[Any, Any], field: str, fields: Mapping[str, Any], options: Options) -> Pages[Any]:
        return Pages(self._calls, method, make_request(method.request, fields), field, options)

    def _batch(self, method: Method[Any, Any], field: str, ids: Iterable[Id], options: Options) -> list[Any]:
        """Return a resource for each id, in the same order, with as many calls as that takes, in one time-out."""
        together = merged(self._calls.defaults, options)
        deadline = time.monotonic() + together["timeout"]
        found: list[Any] = []
        waiting = list(chunks([str(id_) for id_ in ids]))[::-1]
        while waiting:
            chunk = waiting.pop()
            left = {**options, "timeout": max(deadline - time.monotonic(), 0.001)}
            try:
                response = self._call(method, {"ids": chunk}, left)
            except ResponseTooLarge:
                if len(chunk) == 1:
                    raise
                waiting.extend(halves(chunk)[::-1])
            else:
                found.extend(getattr(response, field))
        return found
