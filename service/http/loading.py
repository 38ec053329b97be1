"""Loads the HTTP port only if it is wanted, because its libraries are an extra and take memory."""

import shutil
import tempfile
from collections.abc import Awaitable, Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from service.config import HttpServerSettings
from service.http.tls import Certificates

if TYPE_CHECKING:
    from service.http.port import HttpPort


class HttpUnavailable(Exception):
    """The HTTP port cannot be opened. The message is one line for an operator."""


def http_port(
    settings: HttpServerSettings,
    services: Collection[str],
    certificates: Certificates | None,
    grpc_port: int,
    *,
    require_status: Callable[[Mapping[str, str | bytes]], Awaitable[None]],
    status: Callable[[], dict[str, object]] | None,
    open_pages: bool,
) -> "HttpPort | None":
    """Return the HTTP port that the settings name, which does not listen yet; None if they name none.

    `require_status` and `status` are those of `service.http.status.StatusPage`; without the latter, it is not served.

    Raises:
        HttpUnavailable: a library is missing, no folder can be written, or the console is wanted without the port.
        OSError: a file of the port or of its certificates cannot be read.
    """
    if settings.http_port is None:
        if settings.console:
            raise HttpUnavailable("COMMERCE_CONSOLE is served by the HTTP port: set COMMERCE_HTTP_PORT")
        return None
    try:
        from service.http.port import HttpPort
        from service.http.status import StatusPage
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        raise HttpUnavailable(
            f"COMMERCE_HTTP_PORT needs the package {package}: install commerce-service[http]"
        ) from error
    try:
        folder = Path(tempfile.mkdtemp(prefix="commerce-"))
    except OSError as error:
        raise HttpUnavailable(
            f"COMMERCE_HTTP_PORT needs a folder for a Unix socket: {error}; mount one at /tmp, or set TMPDIR"
        ) from error
    try:
        page = StatusPage(require_status, status) if status else None
        return HttpPort(settings, services, certificates, folder, grpc_port, status=page, open_pages=open_pages)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
