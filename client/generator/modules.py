"""Generated modules that both clients share: enums, types of arguments, and the RPCs as constants."""

import textwrap

from google.api.field_behavior_pb2 import REQUIRED
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from generator.api import (
    HEADER,
    PLAIN_MESSAGES,
    READS,
    WIDTH,
    Api,
    argument_type,
    behaviors,
    class_of,
    constant_name,
    is_map,
    resource_of,
    settable_fields,
)


def enums_module(api: Api) -> str:
    """Return the module with the enums."""
    lines = [
        HEADER.rstrip(),
        '"""The enums of the services. Their members equal the values in messages."""',
        "",
        "from commerce.client.enum_base import Enum",
    ]
    for enum in api.enums:
        prefix = enum.values[0].name.removesuffix("UNSPECIFIED")
        lines += ["", "", f"class {enum.name}(Enum):", f'    """{api.comment(enum)}"""', ""]
        for value in enum.values:
            lines.append(f"    {value.name.removeprefix(prefix)} = {value.number}")
            if comment := api.comments.get(f"{enum.full_name}.{value.name}"):
                lines += [f'    """{comment}"""'.replace("\n", "\n    ")]
    return "\n".join(lines) + "\n"


def types_module(api: Api) -> str:
    """Return the module with the types of arguments: names of enums, and fields of nested messages as dicts."""
    nested: dict[str, Descriptor] = {}
    for service in api.services:
        for rpc in service.methods:
            for field in rpc.input_type.fields:
                _collect(field, nested, resource=resource_of(rpc) == field.name)
    lines = [
        'Interval: TypeAlias = "tuple[datetime | None, datetime | None]"',
        '"""From a time on, and before another; None for no bound."""',
    ]
    for enum in api.enums:
        prefix = enum.values[0].name.removesuffix("UNSPECIFIED")
        names = ", ".join(f'"{value.name.removeprefix(prefix)}"' for value in enum.values[1:])
        lines += [
            f"{enum.name}Name: TypeAlias = Literal[",
            *textwrap.wrap(names + ",", WIDTH, initial_indent="    ", subsequent_indent="    "),
            "]",
            f'{enum.name}Value: TypeAlias = "enums.{enum.name} | {class_of(enum)}.ValueType | {enum.name}Name"',
        ]
    for message in nested.values():
        lines += ["", "", f"class {message.name}Fields(TypedDict):", f'    """{api.comment(message)}"""', ""]
        for field in settable_fields(message):
            type_ = argument_type(field).replace("types.", "")
            kind = type_ if REQUIRED in behaviors(field) else f"NotRequired[{type_}]"
            lines.append(f"    {field.name}: {kind}")
            lines += [f'    """{api.comment(field)}"""'.replace("\n", "\n    ")]
    text = "\n".join(lines) + "\n"
    head = [
        HEADER.rstrip(),
        '"""The types of arguments: names of enums, and the fields of nested messages as dicts."""',
        "",
        "from __future__ import annotations",
        "",
        "from typing import TYPE_CHECKING, Literal, NotRequired, TypeAlias, TypedDict",
        "",
        "if TYPE_CHECKING:",
        "    from collections.abc import Iterable, Mapping",
        "    from datetime import datetime",
        "    from decimal import Decimal",
        "",
        *(f"    {line}" for line in api.imports(text)),
        "",
        "    from commerce.client.generated import enums",
        "    from commerce.client.values import Id, Money",
        "",
    ]
    return "\n".join(head) + "\n" + text


def _collect(field: FieldDescriptor, nested: dict[str, Descriptor], *, resource: bool) -> None:
    message = field.message_type
    if message is None or message.full_name in PLAIN_MESSAGES or is_map(field):
        return
    if not resource:
        nested[message.name] = message
    for inner in settable_fields(message):
        _collect(inner, nested, resource=False)


def methods_module(api: Api) -> str:
    """Return the module with a constant for each RPC."""
    lines = []
    for service in api.services:
        for rpc in service.methods:
            flags = {
                "reads": rpc.GetOptions().idempotency_level == READS,
                "takes_request_id": "request_id" in rpc.input_type.fields_by_name,
                "client_streaming": rpc.client_streaming,
                "server_streaming": rpc.server_streaming,
            }
            lines += [
                f"{constant_name(rpc)} = Method(",
                f'    "/{service.full_name}/{rpc.name}",',
                f"    {class_of(rpc.input_type)},",
                f"    {class_of(rpc.output_type)},",
                *(f"    {name}=True," for name, on in flags.items() if on),
                ")",
            ]
    lines += ["", "ALL: tuple[Method[Any, Any], ...] = ("]
    lines += [f"    {constant_name(rpc)}," for service in api.services for rpc in service.methods]
    text = "\n".join([*lines, ")", '"""Each of them."""']) + "\n"
    head = [
        HEADER.rstrip(),
        '"""All RPCs: what `Client.call` takes."""',
        "",
        "from typing import Any",
        "",
        *api.imports(text),
        "",
        "from commerce.client.methods import Method",
        "",
    ]
    return "\n".join(head) + "\n" + text


def descriptions_module(api: Api) -> str:
    """Return the module with the comments of the protos, which descriptors do not have when a program runs."""
    lines = [
        HEADER.rstrip(),
        '"""The comments of the protos, by the full names of services, methods, messages, fields, enums and values."""',
        "",
        "from collections.abc import Mapping",
        "",
        "DESCRIPTIONS: Mapping[str, str] = {",
    ]
    for name, comment in sorted(api.comments.items()):
        if name.startswith("commerce."):
            paragraphs = [" ".join(part.split()) for part in comment.split("\n\n")]
            text = "\n\n".join(paragraphs)
            lines.append(f"    {name!r}: {text!r},")
    return "\n".join([*lines, "}"]) + "\n"
