"""Cross-origin requests: which web pages may call this port (https://fetch.spec.whatwg.org/#http-cors-protocol)."""

from collections.abc import Collection

# What the clients of the protocols send and read (https://connectrpc.com/docs/cors).
_REQUEST_HEADERS = (
    "content-type, connect-protocol-version, connect-timeout-ms, grpc-timeout, x-grpc-web, x-user-agent, "
    "authorization, x-api-key, x-on-behalf-of, x-read-preference, x-request-id"
)
_RESPONSE_HEADERS = (
    "grpc-status, grpc-message, grpc-status-details-bin, retry-after, trailer-grpc-retry-pushback-ms, "
    "trailer-x-request-id, x-request-id"
)
# Browsers ask again after two hours at the latest.
_SECONDS = "7200"

Headers = list[tuple[str, str]]


class Cors:
    """Allows requests of web pages from some origins.

    Credentials of a browser (cookies) are never allowed, because the service has none.

    Args:
        origins: the origins, such as `https://shop.example.com`; `*` for all.
    """

    def __init__(self, origins: Collection[str]) -> None:
        self._origins = frozenset(origins)

    def headers(self, origin: str) -> Headers:
        """Return the headers of a response to a page from an origin."""
        if not self._origins:
            return []
        # Whether it is allowed or not, a cache must not give it to a page of another origin.
        headers = [("vary", "origin")]
        if self._allows(origin):
            headers += [
                ("access-control-allow-origin", origin),
                ("access-control-expose-headers", _RESPONSE_HEADERS),
            ]
        return headers

    def preflight_headers(self, origin: str, *, reads: bool) -> Headers:
        """Return further headers, of the response to a question whether a request is allowed."""
        if not self._allows(origin):
            return []
        return [
            ("access-control-allow-methods", "GET, POST" if reads else "POST"),
            ("access-control-allow-headers", _REQUEST_HEADERS),
            ("access-control-max-age", _SECONDS),
        ]

    def _allows(self, origin: str) -> bool:
        return bool(origin) and (origin in self._origins or "*" in self._origins)
