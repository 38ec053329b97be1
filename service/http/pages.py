"""The documents that are served beside the methods: the OpenAPI description, and the same as a page to read."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.http.reference import reference_page

_FILE = "openapi.json"
# A page without scripts, whose style is inside it.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_HEADERS = (("cache-control", "no-cache"), ("content-security-policy", _POLICY), ("referrer-policy", "no-referrer"))


@dataclass(frozen=True, slots=True)
class Page:
    """A document.

    Attributes:
        content: its bytes.
        content_type: their type.
        headers: further headers.
    """

    content: bytes
    content_type: str
    headers: tuple[tuple[str, str], ...] = _HEADERS


def pages() -> Mapping[str, Page]:
    """Return the documents by their paths."""
    description = openapi_file().read_bytes()
    document: dict[str, Any] = json.loads(description)
    return {
        "/openapi.json": Page(description, "application/json"),
        "/docs": Page(reference_page(document).encode(), "text/html; charset=utf-8"),
    }


def openapi_file() -> Path:
    """Return the OpenAPI description: inside an installed package, in `clients/` in the source tree."""
    inside = Path(__file__).with_name(_FILE)
    return inside if inside.is_file() else Path(__file__).parents[2] / "clients" / "openapi" / _FILE
