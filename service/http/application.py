"""The ASGI application: finds out what a request wants and in which protocol, and answers it."""

import asyncio
import re
from collections.abc import Collection, Mapping
from typing import Any

import structlog

from service.http.connect import Connect
from service.http.cors import Cors
from service.http.exchange import ClientGone, Exchange, Limits, Receive, Send
from service.http.failures import CallFailed, malformed
from service.http.internal import internal_failure
from service.http.local_hosts import names_this_machine
from service.http.methods import HttpMethod
from service.http.pages import Page
from service.http.plain import PlainJson
from service.http.status import PATH as STATUS_PATH
from service.http.status import StatusPage

_JSON = "application/json"
_UNARY_TYPES = frozenset({_JSON, "application/proto"})
_STREAM_TYPES = frozenset({_JSON, "application/connect+json", "application/connect+proto"})
_GRPC_WEB_TYPES = frozenset({"application/grpc-web", "application/grpc-web+proto", "application/grpc-web+json"})
_CONNECT_VERSION = "connect-protocol-version"

log = structlog.get_logger()


class Application:
    """Answers HTTP requests.

    Args:
        methods: the methods of the services, by their paths.
        plain: serves plain JSON.
        connect: serves Connect and gRPC-Web.
        cors: which web pages may call.
        pages: documents, by their paths.
        status: the state of the server for the console; None if it is not served.
        limits: the limits of requests and responses.
        only_local_hosts: whether to refuse requests that name another host than this machine. Without identities,
            only that keeps a web page from calling: with a name that it lets point to this machine (DNS rebinding),
            the page and this port have one origin.
    """

    def __init__(  # noqa: PLR0913 - each answers another kind of request
        self,
        methods: Mapping[str, HttpMethod],
        plain: PlainJson,
        connect: Connect,
        cors: Cors,
        pages: Mapping[str, Page],
        status: StatusPage | None,
        limits: Limits,
        *,
        only_local_hosts: bool,
    ) -> None:
        self._methods = methods
        self._plain = plain
        self._connect = connect
        self._cors = cors
        self._pages = pages
        self._status = status
        self._limits = limits
        self._only_local_hosts = only_local_hosts

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:  # noqa: ANN401 - as ASGI passes it
        """Answer a request."""
        exchange = Exchange(scope, receive, send, self._limits)
        try:
            await self._answer(exchange)
        except ClientGone:
            return
        except CallFailed as failed:
            if not failed.is_logged:
                path, x_request_id = self._known_path(exchange), exchange.x_request_id
                log.info("request refused", path=path, status=failed.http_status, x_request_id=x_request_id)
            await exchange.fail(failed)
        except asyncio.CancelledError:
            # The port is closed. Not raised again, because uvicorn, which started this task, would log it as an error.
            scope["state"]["abort"]()
        except Exception as error:  # noqa: BLE001 - this is where all failures end
            await exchange.fail(internal_failure(error, self._known_path(exchange)))
            # A response that has begun cannot end in order.
            scope["state"]["close"]()

    def _known_path(self, exchange: Exchange) -> str:
        """Return the path for the log, which has nothing in it that clients make up."""
        return exchange.path if exchange.path in self._methods or exchange.path in self._pages else "unknown"

    async def _answer(self, exchange: Exchange) -> None:
        origin = exchange.header("origin")
        exchange.added_headers += self._cors.headers(origin)
        if self._only_local_hosts and not names_this_machine(exchange.header("host")):
            raise malformed("without identities, only requests to localhost are answered, not to other names", 421)
        if page := self._pages.get(exchange.path):
            await _send_page(exchange, page)
            return
        if self._status and exchange.path == STATUS_PATH:
            await self._status.answer(exchange)
            return
        method = self._methods.get(exchange.path)
        if method is None:
            raise malformed("there is no such method, or it streams its request, which only gRPC can", 404)
        if exchange.method == "OPTIONS" and origin and exchange.header("access-control-request-method"):
            await exchange.respond(204, b"", headers=self._cors.preflight_headers(origin, reads=method.reads))
            return
        await self._call(exchange, method)

    async def _call(self, exchange: Exchange, method: HttpMethod) -> None:
        # Not even a GET: a cache would not know that a response depends on `x-api-key`.
        exchange.added_headers.append(("cache-control", "no-store"))
        content_type = exchange.header("content-type").partition(";")[0].strip().lower()
        if exchange.method == "GET" and method.reads:
            parameters = exchange.query()
            if parameters.get("connect") == "v1" and not method.streams:
                await self._connect.serve(exchange, json=parameters.get("encoding") == "json")
            else:
                await self._plain.serve(exchange, method)
            return
        if exchange.method != "POST":
            allowed = "GET, POST" if method.reads else "POST"
            raise malformed(f"the method allows {allowed}", 405, (("allow", allowed),))
        types = (_STREAM_TYPES if method.streams else _UNARY_TYPES) | _GRPC_WEB_TYPES
        if content_type not in types:
            raise _wrong_type(types)
        if content_type == _JSON and (method.streams or not exchange.header(_CONNECT_VERSION)):
            await self._plain.serve(exchange, method)
        else:
            await self._connect.serve(exchange, json=content_type.endswith("json"))


def _wrong_type(types: Collection[str]) -> CallFailed:
    listed = ", ".join(sorted(types))
    hint = "gRPC itself is served on COMMERCE_PORT"
    return malformed(f"the content type must be one of {listed}; {hint}", 415, (("accept-post", listed),))


async def _send_page(exchange: Exchange, page: Page) -> None:
    if exchange.method not in {"GET", "HEAD"}:
        raise malformed("the page allows GET", 405, (("allow", "GET, HEAD"),))
    if page.is_known_by(exchange.header("if-none-match")):
        await exchange.respond_without_body(304, page.headers)
    elif _accepts_gzip(exchange.header("accept-encoding")):
        headers = (*page.headers, ("content-encoding", "gzip"))
        await exchange.respond(page.status, page.compressed, page.content_type, headers)
    else:
        await exchange.respond(page.status, page.content, page.content_type, page.headers)


def _accepts_gzip(accept_encoding: str) -> bool:
    """Return whether a header `Accept-Encoding` names gzip, with another weight than 0.

    >>> [_accepts_gzip(header) for header in ("", "gzip, br", "br;q=1.0, gzip;q=0.8", "gzip;q=0", "identity")]
    [False, True, True, False, False]
    """
    for coding in accept_encoding.lower().split(","):
        name, _, weight = coding.partition(";")
        if name.strip() == "gzip":
            return not re.fullmatch(r"\s*q\s*=\s*0(\.0*)?\s*", weight)
    return False
