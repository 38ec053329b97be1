"""Options and arguments of commands, made from the fields of requests."""

from __future__ import annotations

import csv
import getpass
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from commerce.client.generated.descriptions import DESCRIPTIONS
from commerce.client.values import Money

if TYPE_CHECKING:
    from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor

# What an option is called if not like its field: the singular of what is repeated, and people and orders by their name.
_NAMES = {
    "user_id": "user",
    "user_ids": "user",
    "from_user_id": "from_user",
    "to_user_id": "to_user",
    "author_id": "author",
    "order_id": "order",
    "statuses": "status",
    "states": "state",
    "types": "type",
    "items": "item",
    "tags": "tag",
    "tags_any": "tag_any",
    "tags_all": "tag_all",
}
# The kind of resource that a field refers to.
REFERENCES = {
    "user_id": "USER",
    "user_ids": "USER",
    "from_user_id": "USER",
    "to_user_id": "USER",
    "author_id": "USER",
    "order_id": "ORDER",
}
_HELP = {
    "USER": "Id, e-mail address or username of the user.",
    "ORDER": "Id or number of the order, such as 42.",
    "request_id": "With the same id, the command can be repeated for 24 hours, and has no second effect.",
}


def option_name(field: str) -> str:
    """Return the name of the option of a field, without dashes: `user_id` gives `user`."""
    return _NAMES.get(field, field)


class MoneyType(click.ParamType[Money]):
    """An amount and its currency: `9.99 EUR` or `9.99EUR`."""

    name = "money"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Money:
        """Return the money of a text."""
        if isinstance(value, Money):
            return value
        amount, currency = value[:-3].strip(), value[-3:].upper()
        try:
            if not currency.isalpha():
                raise ValueError("the currency is missing")
            return Money(amount, currency)
        except ValueError:
            self.fail(f"{value!r} is not an amount with its currency, such as '9.99 EUR'", param, ctx)


class TimeType(click.ParamType[datetime]):
    """A time in ISO 8601; without a zone, it is that of this machine."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return the time of a text."""
        if isinstance(value, datetime):
            return value
        try:
            return datetime.fromisoformat(value).astimezone()
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is not a time, such as 2026-11-30 or 2026-11-30T09:00+01:00", param, ctx)


class PairType(click.ParamType[tuple[str, str]]):
    """A key and its value: `KEY=VALUE`."""

    name = "key=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Return both."""
        if isinstance(value, tuple):
            return value
        key, equals, rest = value.partition("=")
        if not equals or not key:
            self.fail(f"{value!r} is not KEY=VALUE", param, ctx)
        return key, rest


class PartsType(click.ParamType[dict[str, Any]]):
    """A nested message: `product_id=r7,name=Rocket,quantity=2,unit_price=9.99 EUR`.

    Written like a line of CSV: a value with a comma is quoted, with its name: `"name=Rocket, large"`.
    """

    name = "parts"

    def __init__(self, fields: list[FieldDescriptor]) -> None:
        self._fields = {field.name: field for field in fields}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, Any]:
        """Return the fields of the message."""
        if isinstance(value, dict):
            return value
        found: dict[str, Any] = {}
        for part in next(csv.reader([value], skipinitialspace=True), []):
            name, equals, text = part.partition("=")
            field = self._fields.get(name.strip())
            if field is None or not equals:
                example = ",".join(f"{name}=…" for name in self._fields)
                self.fail(f"{part!r} is not one of the parts of {example}", param, ctx)
            found[field.name] = type_of(field).convert(text.strip(), param, ctx)
        return found


def type_of(field: FieldDescriptor) -> click.ParamType[Any]:
    """Return what reads the value of a field; of a repeated one, each value."""
    if field.enum_type is not None:
        return click.Choice(enum_names(field.enum_type), case_sensitive=False)
    if field.message_type is not None:
        if field.message_type.GetOptions().map_entry:
            return PairType()
        if field.message_type.full_name == "google.type.Money":
            return MoneyType()
        return PartsType(settable(field.message_type))
    return click.INT if field.cpp_type in {field.CPPTYPE_INT32, field.CPPTYPE_INT64} else click.STRING


def enum_names(enum: EnumDescriptor) -> list[str]:
    """Return the names of the values of an enum that can be asked for."""
    prefix = enum.values[0].name.removesuffix("UNSPECIFIED")
    return [value.name.removeprefix(prefix).lower() for value in enum.values[1:]]


def settable(message: Any) -> list[FieldDescriptor]:
    """Return the fields of a message that callers can set."""
    from google.api.field_behavior_pb2 import IDENTIFIER, OUTPUT_ONLY

    return [field for field in message.fields if not behaviors(field) & {OUTPUT_ONLY, IDENTIFIER}]


def behaviors(field: FieldDescriptor) -> set[int]:
    """Return how a field behaves (AIP-203)."""
    from google.api.field_behavior_pb2 import field_behavior

    return set(field.GetOptions().Extensions[field_behavior])  # type: ignore[index] # stub of an older protobuf


def option_of(field: FieldDescriptor, *, required: bool, clears: bool = False) -> list[click.Parameter]:
    """Return the options of a field.

    Args:
        field: of a request, or of the resource in it.
        required: whether it must be given.
        clears: whether false or empty is different from not given, as in an update.
    """
    name = option_name(field.name)
    flag = f"--{name.replace('_', '-')}"
    described = summary(DESCRIPTIONS.get(field.full_name, ""))
    help_text = _HELP.get(field.name) or _HELP.get(REFERENCES.get(field.name, ""), described)
    kind = field.message_type and field.message_type.full_name
    if kind == "google.type.Interval":
        return [
            click.Option(["--created-after", "created_after"], type=TimeType(), help="Created at this time or later."),
            click.Option(["--created-before", "created_before"], type=TimeType(), help="Created before this time."),
        ]
    if kind is not None and not field.is_repeated and kind != "google.type.Money":
        return [
            option
            for inner in settable(field.message_type)
            for option in option_of(inner, required=False, clears=clears)
        ]
    if field.cpp_type == field.CPPTYPE_BOOL:
        if clears or field.has_presence:
            return [click.Option([f"{flag}/--no-{flag[2:]}", field.name], default=None, help=help_text)]
        return [click.Option([flag, field.name], is_flag=True, default=None, help=help_text)]
    metavar = REFERENCES.get(field.name)
    return [
        click.Option(
            [flag, field.name],
            type=type_of(field),
            multiple=bool(field.is_repeated),
            required=required,
            metavar=metavar,
            help=help_text,
        )
    ]


def summary(text: str) -> str:
    """Return the first sentence of a comment.

    >>> summary("The currency, such as EUR. Three letters.")
    'The currency, such as EUR.'
    """
    first = " ".join(text.split("\n\n", maxsplit=1)[0].split())
    sentence, stop, _ = first.partition(". ")
    return sentence + stop.strip()


def password_of(file: str | None) -> str:
    """Return a password: the first line of a file, or typed twice without being shown.

    A password is no argument, because other users of a machine see those.
    """
    if file is not None:
        with click.open_file(file, encoding="utf-8") as lines:
            return str(lines.readline()).rstrip("\r\n")
    if not sys.stdin.isatty():
        raise click.UsageError("pass --password-file FILE, or - for standard input, to give the password")
    password = getpass.getpass("Password: ")
    if getpass.getpass("Password again: ") != password:
        raise click.UsageError("the passwords differ")
    return password


def password_option() -> click.Option:
    """Return the option that gives a password."""
    return click.Option(
        ["--password-file"],
        metavar="FILE",
        type=click.Path(exists=True, dir_okay=False, allow_dash=True),
        help="File whose first line is the password; - is standard input.  [default: asked for]",
    )
