"""Lists that are read page by page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic

from commerce.client.pages import Item, Page, following, page_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.message import Message

    from commerce.client.methods import Method
    from commerce.client.options import Options
    from commerce.client.sync.calls import Calls


class Pages(Generic[Item]):
    """A list. Iterate over it for its resources, or over `pages()`.

    Each iteration begins with the first page. While a page is handled, the next one is on its way. The time-out and
    the retries are those of each page.
    """

    def __init__(self, calls: Calls, method: Method[Any, Any], request: Message, field: str, options: Options) -> None:
        self._calls, self._method, self._request, self._field, self._options = calls, method, request, field, options

    def __iter__(self) -> Iterator[Item]:
        for page in self.pages():
            yield from page.items

    def pages(self) -> Iterator[Page[Item]]:
        """Return the pages, one after the other.

        Raises:
            CommerceError: a call failed.
        """
        page, request = self.first_page(), self._request
        while True:
            request = following(request, page)
            if request is None:
                yield page
                return
            upcoming = self._calls.start(self._method, request, self._options)
            try:
                yield page
            except GeneratorExit:
                upcoming.cancel()
                raise
            page = page_of(upcoming.result(), self._field)

    def first_page(self) -> Page[Item]:
        """Return only the first page: the one that `page_token` names, if the list was given one.

        Raises:
            CommerceError: the call failed.
        """
        return page_of(self._calls.call(self._method, self._request, self._options), self._field)
