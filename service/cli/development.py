"""What `commerce serve --dev` adds: how to call the service, and the end of a database that another process runs."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import click
import structlog

from service.config import DevelopmentServerSettings, ServerSettings
from service.devtools.embedded_postgres import OtherOwner, other_owner
from service.rpc.identity.permissions import permissions

# How often a process looks whether the process that runs its database has stopped.
_OWNER_CHECK_SECONDS = 0.1
# For HTTP, if none is configured.
_HTTP_PORT = 50080
# For metrics, if none is configured.
_METRICS_PORT = 50090

log = structlog.get_logger()

_WELCOME = """
The user and order service listens on {address} with a database in {data_dir}.
In another terminal, with grpcurl:

  grpcurl -plaintext{header} {address} list
  grpcurl -plaintext{header} \\
      -d '{{"user": {{"email": "bob@example.com", "username": "bob"}}, "password": "correct horse"}}' \\
      {address} commerce.users.v1.UserService/CreateUser
  grpcurl -plaintext{header} -d '{{"username": "bob"}}' {address} commerce.users.v1.UserService/GetUser

or, for each call, with buf:

  .venv/bin/buf curl --protocol grpc{header}{reflection_header} -d '{{"username": "bob"}}' \\
      http://{address}/commerce.users.v1.UserService/GetUser
{over_http}{console}{metrics}
{callers}

docs/tour.md continues from here. Ctrl-C stops the service; the data stays. Other programs connect to the database with
DATABASE_URL='{database_url}'
"""

_CONSOLE = "\nIn a browser, the console: {url}/console/\n"
_METRICS = "\nFor Prometheus, the metrics: http://{host}:{port}/metrics (docs/metrics.md)\n"
_OVER_HTTP = """
or over HTTP, with curl (docs/http.md; {url}/docs describes all methods in a browser):

  curl {url}/commerce.users.v1.UserService/GetUser \\
      -H 'content-type: application/json'{header} -d '{{"username": "bob"}}'
"""
_HEADER = ' -H "x-api-key: $KEY"'
# buf asks for the schema first, in a call of its own.
_REFLECTION_HEADER = " --reflect-header '*'"
_ANONYMOUS = """\
Every caller is anonymous and may do everything, because only programs of this machine reach the address. To call with
a key instead, stop the service, and run

  KEY=$(.venv/bin/commerce keys create me --file {keys})
  COMMERCE_API_KEYS_FILE={keys} make run"""
_KNOWN = """\
Callers need a key, which this command makes: KEY=$(.venv/bin/commerce keys create me --file {keys})"""
# What every known caller may do in development, until the file is changed.
_POLICY = """\
# What the callers of `commerce serve --dev` may do (docs/security.md); read again when it changes.

[roles]
developer = {permissions}

[identities]
"*" = ["developer"]
"""


def with_policy(settings: DevelopmentServerSettings) -> DevelopmentServerSettings:
    """Return the settings with a policy that allows everything, if callers are known and none is configured."""
    if settings.policy_file or not settings.has_identities:
        return settings
    path = settings.data_dir / "policy.toml"
    if not path.exists():
        path.write_text(_POLICY.format(permissions=json.dumps([*permissions()])))
    return settings.model_copy(update={"policy_file": path})


def with_http(settings: DevelopmentServerSettings) -> DevelopmentServerSettings:
    """Return the settings with a port for HTTP and the console, unless the libraries of HTTP are not installed.

    What is configured stays as it is.
    """
    if find_spec("connectrpc") is None or find_spec("uvicorn") is None:
        return settings
    # A free one beside a free one for gRPC, so that several servers can run.
    added: dict[str, object] = {"console": True, "http_port": _HTTP_PORT if settings.port else 0}
    configured = {name for name in added if name in settings.model_fields_set}
    return settings.model_copy(update={name: value for name, value in added.items() if name not in configured})


def with_metrics(settings: DevelopmentServerSettings) -> DevelopmentServerSettings:
    """Return the settings with a port for metrics, unless one is configured or the library is not installed."""
    if find_spec("prometheus_client") is None or find_spec("uvicorn") is None or settings.metrics_port is not None:
        return settings
    return settings.model_copy(update={"metrics_port": _METRICS_PORT if settings.port else 0})


class Ports(NamedTuple):
    """Where a server listens.

    Attributes:
        grpc: its port.
        http: its port for HTTP; 0 without one.
        metrics: its port for metrics; 0 without one.
    """

    grpc: int
    http: int
    metrics: int


def welcome(settings: ServerSettings, ports: Ports, data_dir: Path) -> None:
    """Print how to call the service."""
    http_port = ports.http
    keys = settings.api_keys_file or data_dir / "keys.toml"
    callers = _KNOWN if settings.api_keys_file else _ANONYMOUS
    if settings.has_identities and not settings.api_keys_file:
        callers = "Callers need a credential: docs/security.md."
    header = _HEADER if settings.api_keys_file else ""
    text = _WELCOME.format(
        address=f"{settings.host}:{ports.grpc}",
        data_dir=data_dir,
        # Only SQLAlchemy accepts the name of a driver in the URL.
        database_url=settings.database_url.get_secret_value().replace("+asyncpg", ""),
        header=header,
        console=_CONSOLE.format(url=_url(settings, http_port)) if http_port and settings.console else "",
        metrics=_METRICS.format(host=settings.metrics_host, port=ports.metrics) if ports.metrics else "",
        over_http=_OVER_HTTP.format(url=_url(settings, http_port), header=header) if http_port else "",
        reflection_header=_REFLECTION_HEADER if settings.api_keys_file else "",
        callers=callers.format(keys=keys),
    )
    click.echo(text)


def _url(settings: ServerSettings, http_port: int) -> str:
    host = f"[{settings.http_host}]" if ":" in settings.http_host else settings.http_host
    return f"{'https' if settings.tls_certificate_file else 'http'}://{host}:{http_port}"


@asynccontextmanager
async def stopping_with_owner(data_dir: Path) -> AsyncIterator[None]:
    """During the block, send this process SIGTERM when another process that runs the database stops."""
    watching: asyncio.Task[None] | None = None
    if owner := other_owner(data_dir):
        log.info("using the database of another process, and stopping when it does", pid=owner.pid)
        watching = asyncio.create_task(_stop_with(owner))
    try:
        yield
    finally:
        if watching:
            watching.cancel()


async def _stop_with(owner: OtherOwner) -> None:
    while owner.is_running():  # noqa: ASYNC110 - a file lock wakes no event loop
        await asyncio.sleep(_OWNER_CHECK_SECONDS)
    log.warning("stopping, because the process that runs the database has stopped", pid=owner.pid)
    signal.raise_signal(signal.SIGTERM)
