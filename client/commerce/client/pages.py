"""A page of a list."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """A page of a list.

    Attributes:
        items: its resources.
        next_page_token: pass it as `page_token` to get the next page; empty on the last page, and only there.
        total_size: the number of all resources of the list, if `include_total_size` was set; else 0.
        response: the whole response.
    """

    items: Sequence[Item]
    next_page_token: str
    total_size: int
    response: Any


def page_of(response: Any, field: str) -> Page[Any]:
    """Return the page that a response holds; its resources are in `field`."""
    return Page(getattr(response, field), response.next_page_token, response.total_size, response)


def following(request: Any, page: Page[Any]) -> Any:
    """Return the request for the page after this one, or None after the last one."""
    if not page.next_page_token:
        return None
    copy = type(request)()
    copy.CopyFrom(request)
    copy.page_token = page.next_page_token
    return copy
