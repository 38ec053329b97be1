"""The console: a web page that shows the services, from files that are served as they are.

The files hold no data. What the page shows, it asks of the methods, as any other client does, with the credentials
that its user enters.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from service.http.pages import Page

_PATH = "/console/"
_FILES = Path(__file__).with_name("web")
_SCHEMA = "schema.json"
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
}
# Nothing but the files of this server, and calls of its methods. Trusted types: the browser refuses to make HTML or a
# script of a text, so that what the service returns is never more than text.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
_HEADERS = (
    # Asked for again each time, and answered with 304: the files of one page are always of one version.
    ("cache-control", "no-cache"),
    ("content-security-policy", _POLICY),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("referrer-policy", "no-referrer"),
)


def console_pages(grpc_port: int, *, tls: bool) -> Mapping[str, Page]:
    """Return the files of the console by their paths.

    Args:
        grpc_port: the TCP port for gRPC, for the commands that the console writes; 0 without one.
        tls: whether it has TLS.
    """
    files = [path for path in _FILES.rglob("*") if path.suffix in _TYPES]
    found = {
        _PATH + path.relative_to(_FILES).as_posix(): Page(path.read_bytes(), _TYPES[path.suffix], _HEADERS)
        for path in files
    }
    server = json.dumps({"grpcPort": grpc_port, "tls": tls}).encode()
    found[_PATH + "server.json"] = Page(server, _TYPES[".json"], _HEADERS)
    found[_PATH + _SCHEMA] = Page(schema_file().read_bytes(), _TYPES[".json"], _HEADERS)
    found[_PATH] = found.pop(f"{_PATH}index.html")
    # The addresses in the page are relative to its own.
    found[_PATH.rstrip("/")] = Page(b"", "text/plain", (("location", _PATH.strip("/") + "/"),), status=308)
    return found


def schema_file() -> Path:
    """Return what the console knows of the services: inside an installed package, in `clients/` in the source tree."""
    inside = Path(__file__).with_name("console_schema.json")
    return inside if inside.is_file() else Path(__file__).parents[2] / "clients" / "console" / _SCHEMA
