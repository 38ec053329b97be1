"""Parse URLs of PostgreSQL databases as libpq does. Error messages never contain the URL: it may have a password."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

_SCHEMES = frozenset({"postgres", "postgresql", "postgresql+asyncpg"})
DEFAULT_PORT = 5432
_MAX_PORT = 65535
_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_FORM = "it is not a URL such as postgresql://user:password@host/database"

_HOST = r"(?:\[[^\]/?@]*\]|[^:/?\[\],@]*)(?::\d*)?"
_REST = rf"(?P<hosts>{_HOST}(?:,{_HOST})*)(?:/(?P<database>[^?]*))?(?:\?(?P<query>.*))?"
# The second form is for passwords that contain characters which should be encoded.
_FORMS = tuple(
    re.compile(rf"(?P<scheme>[\w+]+)://{credentials}{_REST}")
    for credentials in (
        "(?:(?P<user>[^:/?]*)(?::(?P<password>[^@/?]*))?@)?",
        "(?P<user>[^:/?]*):(?P<password>[^@]*)@",
    )
)
# Parameters that the driver knows, and those that `service.db.connections.engine` passes to it.
_PASSED = frozenset(
    {
        *("application_name", "connect_timeout", "host", "options", "passfile", "password", "port", "service"),
        *("ssl", "sslcert", "sslcrl", "sslkey", "sslnegotiation", "sslpassword", "sslrootcert", "target_session_attrs"),
        *("ssl_max_protocol_version", "ssl_min_protocol_version", "user", "database"),
    }
)
_RENAMED = {"dbname": "database", "sslmode": "ssl"}
# Parameters that ask for what happens anyway if they have one of these values.
_FULFILLED: Mapping[str, frozenset[str]] = {
    "channel_binding": frozenset({"disable", "prefer"}),
    "client_encoding": frozenset({"auto", "utf8", "utf-8"}),
    "gssencmode": frozenset({"disable", "prefer"}),
    "load_balance_hosts": frozenset({"disable"}),
    "sslcompression": frozenset({"0"}),
    "sslsni": frozenset({"1"}),
}


@dataclass(frozen=True, slots=True)
class DatabaseUrl:
    """The parts of a URL, decoded.

    Attributes:
        user: None if the URL has none; likewise `password` and `database`.
        hosts: the hosts, or directories of sockets, to try one after the other, each with its port; empty if the URL
            has none.
        parameters: the other parameters, by the names that asyncpg uses.
    """

    user: str | None
    password: str | None
    hosts: tuple[tuple[str, int], ...]
    database: str | None
    parameters: Mapping[str, str]


def parse_database_url(url: str) -> DatabaseUrl:
    """Parse a URL, also in the forms that other programs accept (`postgres://…?sslmode=require`).

    Raises:
        ValueError: it is not the URL of a PostgreSQL database, or it asks for something that is not supported. The
            message is one line.
    """
    url = url.strip()
    found = next((match for form in _FORMS if (match := form.fullmatch(url))), None)
    if not found:
        raise ValueError(_FORM)
    if found["scheme"] not in _SCHEMES:
        raise ValueError("it must begin with postgresql://")
    parameters = _parameters(found["query"] or "")
    hosts = [_host_and_port(host) for host in found["hosts"].split(",")] if found["hosts"] else []
    return DatabaseUrl(
        user=parameters.pop("user", None) or _decoded(found["user"]),
        password=parameters.pop("password", None) or _decoded(found["password"]),
        hosts=_all_hosts(hosts, parameters.pop("host", ""), parameters.pop("port", "")),
        database=parameters.pop("database", None) or _decoded(found["database"]),
        parameters=parameters,
    )


def _decoded(part: str | None) -> str | None:
    if not part:
        return None
    try:
        decoded = unquote(part, errors="strict")
    except UnicodeDecodeError:
        raise ValueError("a percent-encoded part is not UTF-8") from None
    if "\0" in decoded:
        raise ValueError("it contains %00")
    return decoded


def _default_port() -> int:
    """Return the port of a host for which none is given, as libpq does; raises ValueError."""
    return _port_number(os.environ.get("PGPORT") or str(DEFAULT_PORT), "PGPORT")


def _port_number(port: str, name: str) -> int:
    if not (port.isascii() and port.isdecimal() and 1 <= int(port) <= _MAX_PORT):
        raise ValueError(f"{name} is not a number from 1 to {_MAX_PORT}")
    return int(port)


def _host_and_port(host: str) -> tuple[str, str]:
    name, _, port = host[1:].partition("]") if host.startswith("[") else host.partition(":")
    return _decoded(name) or "", port.removeprefix(":") if host.startswith("[") else port


def _all_hosts(hosts: list[tuple[str, str]], names: str, ports: str) -> tuple[tuple[str, int], ...]:
    """Return hosts with ports; those of the parameters `host` and `port` replace those before the path."""
    if names:
        # Also host:port, which only drivers of Python accept.
        hosts = [_host_and_port(name) if name.count(":") == 1 else (name, "") for name in names.split(",")]
    if not hosts and ports:
        hosts = [("localhost", "")]
    if ports:
        given = ports.split(",")
        given = given * len(hosts) if len(given) == 1 else given
        if len(given) != len(hosts):
            raise ValueError("it has another number of ports than of hosts")
        hosts = [(name, port) for (name, _), port in zip(hosts, given, strict=True)]
    return tuple(
        (name or "localhost", _port_number(port, "a port") if port else _default_port()) for name, port in hosts
    )


def _parameters(query: str) -> dict[str, str]:
    parameters: dict[str, str] = {}
    for part in query.split("&") if query else []:
        given_name, equals, given_value = part.partition("=")
        if not equals:
            raise ValueError("what follows the question mark does not have the form name=value&name=value")
        # Unlike in a form of a web page, + is no space.
        name, value = _decoded(given_name) or "", _decoded(given_value) or ""
        # As programs in Java write it.
        if (name, value) == ("ssl", "true"):
            value = "require"
        name = _RENAMED.get(name, name)
        if name in _PASSED:
            # Several hosts may also be given one by one.
            parameters[name] = f"{parameters[name]},{value}" if name == "host" and name in parameters else value
        elif name not in _FULFILLED:
            shown = name if re.fullmatch("[a-z_]{1,40}", name) else "with a strange name"
            raise ValueError(f"the parameter {shown} is not supported")
        elif value.lower() not in _FULFILLED[name]:
            raise ValueError(f"of the parameter {name}, only {' and '.join(sorted(_FULFILLED[name]))} are supported")
    _check(parameters)
    return parameters


def _check(parameters: Mapping[str, str]) -> None:
    if not parameters.get("connect_timeout", "0").isdecimal():
        raise ValueError("connect_timeout is not a whole number of seconds")
    mode = parameters.get("ssl", "prefer")
    if mode not in _SSL_MODES:
        raise ValueError(f"sslmode is none of {', '.join(_SSL_MODES)}")
    for name in ("sslrootcert", "sslcert", "sslkey", "sslcrl"):
        path = parameters.get(name, "")
        if path and not (name == "sslrootcert" and path == "system") and not os.access(path, os.R_OK):
            raise ValueError(f"the file that {name} names cannot be read")
    if parameters.get("sslrootcert") == "system" and mode != "verify-full":
        raise ValueError("sslrootcert=system needs sslmode=verify-full")
    if mode.startswith("verify-") and not parameters.get("sslrootcert") and not _has_root_certificate():
        raise ValueError(f"sslmode={mode} needs sslrootcert: a file with certificates, or system")


def _has_root_certificate() -> bool:
    """Return whether there is a root certificate where libpq looks for one by default."""
    if "PGSSLROOTCERT" in os.environ:
        return True
    try:
        return (Path.home() / ".postgresql" / "root.crt").exists()
    except RuntimeError:
        return False
