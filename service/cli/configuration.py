"""The `commerce config` command: the settings in effect, and where each comes from."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote

import click
from pydantic_core import PydanticUndefined

from service.cli.running import one_line_errors
from service.config import (
    OLD_NAMES,
    DevelopmentSettings,
    GcSettings,
    RelaySettings,
    ServerSettings,
    Settings,
    SettingsError,
    environment_name,
    is_secret,
    load,
    unknown_variables,
)
from service.database_url import parse_database_url
from service.environment import FILE_SUFFIX, read_secret, variables

HIDDEN = "***"
_DEFAULT, _NOT_SET = "default", "not set"
# A setting is listed with the first class that has it.
_KINDS: tuple[type[Settings], ...] = (ServerSettings, DevelopmentSettings, GcSettings, RelaySettings)
_DATABASE_URLS = frozenset({"DATABASE_URL", "READ_DATABASE_URL"})
# Only `commerce relay` needs it.
_OPTIONAL = "COMMERCE_NATS_URL"
# What is before the @ of each address in a URL: a user with a password, or a token.
_CREDENTIALS = re.compile(r"(?<=://)[^/\s]*@")


@dataclass(frozen=True, slots=True)
class EffectiveSetting:
    """A setting, as it is shown.

    Attributes:
        name: the environment variable.
        value: its value, without secrets; empty if it is not set.
        origin: where the value comes from.
    """

    name: str
    value: str
    origin: str

    @property
    def is_set(self) -> bool:
        """Whether the value is none that the service has chosen."""
        return self.origin not in {_DEFAULT, _NOT_SET}


def config(*, changed: bool) -> None:
    """Print the settings, or only those that are set; fails if any is wrong."""
    with one_line_errors():
        problems = _problems()
        shown = [
            setting for setting in effective_settings() if setting.is_set or setting.name in problems or not changed
        ]
        width = max((len(setting.name) for setting in shown), default=0)
        value_width = max((len(setting.value) for setting in shown), default=0)
        for setting in shown:
            value = "(wrong)" if setting.name in problems and setting.is_set else setting.value
            click.echo(f"{setting.name:{width}}  {value:{min(value_width, 40)}}  {setting.origin}")
        for warning in unknown_variables():
            click.echo(warning, err=True)
        if problems:
            raise SettingsError("; ".join(problems.values()))


def _problems() -> dict[str, str]:
    """Return what is wrong with settings, by their names."""
    problems: dict[str, str] = {}
    for kind in _KINDS:
        try:
            load(kind)
        except SettingsError as error:
            for problem in str(error).split("; "):
                name = problem.split(" ")[0]
                if not (name == _OPTIONAL and problem.endswith("is not set")):
                    problems[name.removesuffix(FILE_SUFFIX) if _is_file_of_secret(name) else name] = problem
    return problems


def _is_file_of_secret(name: str) -> bool:
    return any(f"{environment_name(kind, field)}{FILE_SUFFIX}" == name for kind, field in _secrets())


def _secrets() -> Iterator[tuple[type[Settings], str]]:
    for kind in _KINDS:
        yield from ((kind, field) for field in kind.model_fields if is_secret(kind, field))


def effective_settings() -> Iterator[EffectiveSetting]:
    """Yield all settings of all commands, in the order of the classes."""
    seen = set()
    for kind in _KINDS:
        for field in kind.model_fields:
            if (name := environment_name(kind, field)) not in seen:
                seen.add(name)
                yield _effective_setting(kind, field, name)


def _effective_setting(kind: type[Settings], field: str, name: str) -> EffectiveSetting:
    environment, secret = variables(), is_secret(kind, field)
    old_name = next((old for old, new in OLD_NAMES.items() if new == field and old in environment), None)
    if name in environment:
        return EffectiveSetting(name, shown_value(name, environment[name], secret=secret), "environment")
    if secret and (path := environment.get(f"{name}{FILE_SUFFIX}")) is not None:
        return EffectiveSetting(name, _shown_file(name, path), f"file {path}")
    if old_name:
        value = shown_value(name, environment[old_name], secret=secret)
        return EffectiveSetting(name, value, f"environment, by the old name {old_name}")
    default = kind.model_fields[field].default
    if default in (None, PydanticUndefined):
        return EffectiveSetting(name, "", _NOT_SET)
    return EffectiveSetting(name, str(default), _DEFAULT)


def _shown_file(name: str, path: str) -> str:
    try:
        return shown_value(name, read_secret(path), secret=True)
    except ValueError:
        # `load` says why.
        return HIDDEN


def shown_value(name: str, value: str, *, secret: bool) -> str:
    """Return the value of a setting without what nobody may see: secrets, and passwords in URLs."""
    if name in _DATABASE_URLS:
        return database_url_without_password(value)
    if "://" in value:
        # Its parameters can have secrets too.
        return _CREDENTIALS.sub(f"{HIDDEN}@", value.partition("?")[0])
    return HIDDEN if secret else value


def database_url_without_password(url: str) -> str:
    """Return the URL of a database, with its password and the values of its parameters hidden.

    >>> database_url_without_password("postgres://ada:pw@db:5433/shop?sslmode=require&sslpassword=pw")
    'postgresql://ada:***@db:5433/shop?ssl=require&sslpassword=***'
    >>> database_url_without_password("not a URL")
    '***'
    """
    try:
        parsed = parse_database_url(url)
    except ValueError:
        return HIDDEN
    credentials = f"{quote(parsed.user or '', safe='')}{f':{HIDDEN}' if parsed.password else ''}"
    hosts = ",".join(f"{quote(host, safe=':')}:{port}" for host, port in parsed.hosts)
    parameters = "&".join(
        f"{name}={HIDDEN if 'password' in name else value}" for name, value in parsed.parameters.items()
    )
    return (
        f"postgresql://{credentials}{'@' if credentials else ''}{hosts}/{quote(parsed.database or '', safe='')}"
        f"{'?' if parameters else ''}{parameters}"
    )
