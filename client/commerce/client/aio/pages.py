"""Lists that are read page by page."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Generic

from commerce.client.pages import Item, Page, following, page_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from google.protobuf.message import Message

    from commerce.client.aio.calls import Calls
    from commerce.client.methods import Method
    from commerce.client.options import Options


class AsyncPages(Generic[Item]):
    """A list. Iterate over it with `async for` for its resources, or over `pages()`.

    Each iteration begins with the first page. While a page is handled, the next one is on its way. The time-out and
    the retries are those of each page.
    """

    def __init__(self, calls: Calls, method: Method[Any, Any], request: Message, field: str, options: Options) -> None:
        self._calls, self._method, self._request, self._field, self._options = calls, method, request, field, options

    async def __aiter__(self) -> AsyncIterator[Item]:
        # Closed with this iteration, if the caller leaves it early.
        async with aclosing(self.pages()) as pages:
            async for page in pages:
                for item in page.items:
                    yield item

    async def pages(self) -> AsyncGenerator[Page[Item], None]:
        """Return the pages, one after the other.

        Raises:
            CommerceError: a call failed.
        """
        page, request = await self.first_page(), self._request
        while True:
            request = following(request, page)
            if request is None:
                yield page
                return
            upcoming = asyncio.create_task(self._calls.call(self._method, request, self._options))
            # Whether or not the caller comes to it.
            upcoming.add_done_callback(lambda task: task.cancelled() or task.exception())
            try:
                yield page
                response = await upcoming
            finally:
                # If the caller has left the loop, or was cancelled.
                upcoming.cancel()
            page = page_of(response, self._field)

    async def first_page(self) -> Page[Item]:
        """Return only the first page: the one that `page_token` names, if the list was given one.

        Raises:
            CommerceError: the call failed.
        """
        return page_of(await self._calls.call(self._method, self._request, self._options), self._field)
