"""The documents that are served beside the methods: the OpenAPI description, and the same as a page to read."""

import gzip
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from service.http.reference import reference_page

_FILE = "openapi.json"
# A page without scripts, whose style is inside it.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_HEADERS = (("cache-control", "no-cache"), ("content-security-policy", _POLICY), ("referrer-policy", "no-referrer"))


class Page:
    """A document.

    Args:
        content: its bytes.
        content_type: their type.
        headers: further headers.
        status: the HTTP status that it has.

    Attributes:
        content: see above.
        content_type: see above.
        headers: see above, and the tag of the content.
        status: see above.
        compressed: the content, compressed by gzip.
        etag: changes with the content. It is a weak one (RFC 9110, 8.8.1): the compressed content has the same.
    """

    def __init__(
        self, content: bytes, content_type: str, headers: tuple[tuple[str, str], ...] = _HEADERS, status: int = 200
    ) -> None:
        self.content = content
        self.content_type = content_type
        self.status = status
        # Without a time, so that all workers of a server send the same bytes.
        self.compressed = gzip.compress(content, 6, mtime=0)
        self.etag = f'W/"{hashlib.sha256(content).hexdigest()[:32]}"'
        self.headers = (*headers, ("etag", self.etag), ("vary", "accept-encoding"))

    def is_known_by(self, if_none_match: str) -> bool:
        """Return whether a header `If-None-Match` has the tag of the content.

        >>> page = Page(b"", "text/plain")
        >>> [page.is_known_by(header) for header in ("", '"a"', f'"a", {page.etag}', "*")]
        [False, False, True, True]
        """
        return if_none_match.strip() == "*" or self.etag in (tag.strip() for tag in if_none_match.split(","))


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
