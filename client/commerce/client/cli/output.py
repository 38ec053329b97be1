"""Messages as tables, JSON, YAML and CSV."""

from __future__ import annotations

import csv
import json
import sys
from typing import TYPE_CHECKING, Any

import click
from rich.text import Text

from commerce.client.cli.tables import pairs
from commerce.client.cli.texts import visible
from commerce.client.values import Money, to_datetime

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from google.protobuf.descriptor import FieldDescriptor
    from google.protobuf.message import Message
    from rich.table import Table

    from commerce.client.cli.session import Session

_MONEY, _TIME, _DATE = "google.type.Money", "google.protobuf.Timestamp", "google.type.Date"


def to_dict(message: Message) -> dict[str, Any]:
    """Return a message in protobuf's JSON, with the names of the protos."""
    # Imported here, like YAML: a command that does not need it starts sooner.
    from google.protobuf.json_format import MessageToDict

    return MessageToDict(message, preserving_proto_field_name=True)


def print_one(session: Session, message: Message) -> None:
    """Print one message."""
    if session.quiet:
        print_ids([message])
    elif session.format == "json":
        click.echo(json.dumps(to_dict(message), indent=2, ensure_ascii=False))
    elif session.format == "yaml":
        print_yaml(to_dict(message))
    elif session.format == "csv":
        write_csv(sys.stdout, message.DESCRIPTOR, [message])
    else:
        session.show(details(message))


def print_list(session: Session, descriptor: Any, messages: Iterable[Message], columns: Sequence[str]) -> None:
    """Print messages of one kind.

    Args:
        session: says how.
        descriptor: of the messages.
        messages: they are read one by one, as far as the format allows it.
        columns: of the table, as paths of fields; CSV has a column for each field.
    """
    if session.quiet:
        print_ids(messages)
    elif session.format == "json":
        click.echo(json.dumps([to_dict(message) for message in messages], indent=2, ensure_ascii=False))
    elif session.format == "yaml":
        print_yaml([to_dict(message) for message in messages])
    elif session.format == "csv":
        write_csv(sys.stdout, descriptor, messages)
    else:
        session.show_listing(columns, [row_of(columns, message) for message in messages])


def print_values(session: Session, values: Sequence[Mapping[str, str]], columns: Sequence[str]) -> None:
    """Print what is not a message: rows of texts."""
    if session.quiet:
        for row in values:
            click.echo(row[columns[0]])
    elif session.format == "json":
        click.echo(json.dumps([dict(row) for row in values], indent=2, ensure_ascii=False))
    elif session.format == "yaml":
        print_yaml([dict(row) for row in values])
    elif session.format == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([row[column] for column in columns] for row in values)
    else:
        session.show_listing(columns, [[visible(row[column]) for column in columns] for row in values])


def print_yaml(value: Any) -> None:
    """Print what JSON can hold as YAML."""
    import yaml

    # In C, where PyYAML was built with it: ten times as fast.
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    yaml.dump(value, sys.stdout, dumper, allow_unicode=True, sort_keys=False, width=120)


def print_ids(messages: Iterable[Message]) -> None:
    """Print the id of each message, or of the resource that it is about; one on each line."""
    for message in messages:
        click.echo(_id_of(message))


def _id_of(message: Any) -> str:
    fields = message.DESCRIPTOR.fields_by_name
    for name in ("id", "name", "user_id", "transaction_id"):
        if name in fields:
            return str(getattr(message, name))
    # A match of a search, or a response with a resource.
    for field in message.DESCRIPTOR.fields:
        if field.message_type is not None and not field.is_repeated and "id" in field.message_type.fields_by_name:
            return str(getattr(message, field.name).id)
    return " ".join(text for _, text in _facts(message))


def row_of(columns: Sequence[str], message: Message) -> list[str]:
    """Return the cells of the row of a message."""
    return [visible(cell_at(message, path)) for path in columns]


def details(message: Message) -> Table:
    """Return a table with a row for each field of a message that is set."""
    table = pairs()
    for name, text in _facts(message):
        table.add_row(Text(name), Text(visible(text, lines=True)))
    return table


def _facts(message: Message, prefix: str = "") -> Iterator[tuple[str, str]]:
    for field, value in message.ListFields():
        name = f"{prefix}{field.name}"
        if _is_nested(field) and not field.is_repeated:
            yield from _facts(value, f"{name}.")
        elif _is_nested(field) and not _is_map(field):
            for item in value:
                yield name, ", ".join(f"{inner} {text}" for inner, text in _facts(item) if inner != "id")
        else:
            yield name, cell(field, value)


def cell_at(message: Any, path: str) -> str:
    """Return the text of a field at a path such as `order.status`; empty if it is not set."""
    *parents, last = path.split(".")
    for parent in parents:
        message = getattr(message, parent)
    field = message.DESCRIPTOR.fields_by_name[last]
    if field.message_type is not None and not field.is_repeated and not message.HasField(last):
        return ""
    value = getattr(message, last)
    if field.message_type is not None and field.message_type.full_name == _TIME:
        # All rows are in the zone of this machine, which would make the column much wider.
        return to_datetime(value).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    return cell(field, value)


def cell(field: FieldDescriptor, value: Any) -> str:
    """Return the value of a field as people read it: times in the zone of this machine, money with its currency."""
    if _is_map(field):
        return ", ".join(f"{key}={value[key]}" for key in sorted(value))
    if field.is_repeated:
        return ", ".join(_one(field, item) for item in value)
    return _one(field, value)


def _one(field: FieldDescriptor, value: Any) -> str:
    if field.enum_type is not None:
        return enum_name(field, value)
    if field.message_type is None:
        return str(value).lower() if isinstance(value, bool) else str(value)
    match field.message_type.full_name:
        case "google.type.Money":
            return str(Money.from_message(value))
        case "google.protobuf.Timestamp":
            return to_datetime(value).astimezone().isoformat(sep=" ", timespec="seconds")
        case "google.type.Date":
            return f"{value.year:04}-{value.month:02}-{value.day:02}"
    return ", ".join(f"{name} {text}" for name, text in _facts(value) if name != "id")


def enum_name(field: FieldDescriptor, number: int) -> str:
    """Return the name of a value of an enum, without the name of the enum; the number of one that is not known."""
    values = field.enum_type.values_by_number if field.enum_type else {}
    if not number:
        return ""
    if number not in values:
        return str(number)
    return str(values[number].name.removeprefix(values[0].name.removesuffix("UNSPECIFIED")))


def _is_map(field: FieldDescriptor) -> bool:
    return bool(field.message_type is not None and field.message_type.GetOptions().map_entry)


def _is_nested(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.full_name not in {_MONEY, _TIME, _DATE}


def csv_columns(descriptor: Any, prefix: str = "") -> Iterator[str]:
    """Yield the columns of CSV: a path for each field, two for money; repeated fields and maps are JSON in one."""
    for field in descriptor.fields:
        path = f"{prefix}{field.name}"
        if field.message_type is None or field.is_repeated or field.message_type.full_name in {_TIME, _DATE}:
            yield path
        elif field.message_type.full_name == _MONEY:
            yield from (f"{path}.amount", f"{path}.currency")
        else:
            yield from csv_columns(field.message_type, f"{path}.")


def csv_row(message: Any) -> list[str]:
    """Return the cells of a row of CSV: exact, and the same on every machine."""
    return list(_csv_cells(message.DESCRIPTOR, message))


def _csv_cells(descriptor: Any, message: Any) -> Iterator[str]:
    for field in descriptor.fields:
        value = None if message is None else getattr(message, field.name)
        kind = field.message_type and field.message_type.full_name
        if field.is_repeated:
            yield _json_of(message, field)
        elif field.enum_type is not None:
            yield enum_name(field, value or 0)
        elif kind is None:
            yield "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
        else:
            inner = value if message is not None and message.HasField(field.name) else None
            if kind == _MONEY:
                money = Money.from_message(inner) if inner is not None else None
                yield from (str(money.amount), money.currency) if money else ("", "")
            elif kind in {_TIME, _DATE}:
                yield (inner.ToJsonString() if kind == _TIME else _one(field, inner)) if inner is not None else ""
            elif field.message_type is not None:
                yield from _csv_cells(field.message_type, inner)


def _json_of(message: Any, field: FieldDescriptor) -> str:
    if message is None or not getattr(message, field.name):
        return ""
    part = type(message)()
    getattr(part, field.name).MergeFrom(getattr(message, field.name))
    return json.dumps(to_dict(part)[field.name], ensure_ascii=False)


def write_csv(file: Any, descriptor: Any, messages: Iterable[Message]) -> None:
    """Write messages with a header."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(csv_columns(descriptor))
    for message in messages:
        writer.writerow(csv_row(message))
