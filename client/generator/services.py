"""Generate the methods of `commerce.client` from the descriptors of the services.

For each unary RPC, `Client` and `AsyncClient` get a method with keyword arguments for the fields of its request:

- Its name is that of the RPC without the resource of the service, which is the first word of the service's name:
  `CreateUser` is `client.users.create`, `AddOrderTags` is `client.orders.add_tags`.
- Keyword arguments are the fields of the request, and of the resource in it, that callers can set. Fields in
  `POSITIONAL` can be given by position. What is REQUIRED has no default.
- It returns the resource, if that is all that the response has; else the response. Lists return pages, and batches take
  any number of ids.

Streams are not generated: their methods are written by hand.
"""

from dataclasses import dataclass

from google.api.field_behavior_pb2 import IMMUTABLE, REQUIRED
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor, ServiceDescriptor

from generator.api import (
    HEADER,
    POSITIONAL,
    READS,
    Api,
    Argument,
    argument_type,
    behaviors,
    class_of,
    constant_name,
    docstring,
    is_streaming,
    message_of,
    method_name,
    resource_of,
    settable_fields,
)


@dataclass(frozen=True)
class Kind:
    """One of the two clients.

    Attributes:
        folder: the package of its code.
        prefix: of the names of its classes.
        keyword: before the definition of a method.
        wait: before a call.
    """

    folder: str
    prefix: str
    keyword: str
    wait: str


SYNC = Kind("sync", "", "def", "")
ASYNC = Kind("aio", "Async", "async def", "await ")
_PARAGRAPH = "\n\n"
_MAX_IDS = 1000
# Where the clients do more than the protos say.
_COMMENTS = {
    "request_id": "With the same id and the same arguments, the call can be made again for 24 hours, and has no second "
    "effect. Without one, the client makes one and keeps it for all attempts. Give one that your program will find "
    "again, for example with `derive_request_id`, to repeat the call safely after a crash of the program.",
}


def services_module(api: Api, service: ServiceDescriptor, kind: Kind) -> str:
    """Return the module with the methods of a service for one of the clients.

    Raises:
        ValueError: two RPCs, or two arguments of one, would have the same name.
    """
    names = [method_name(rpc) for rpc in service.methods]
    if len(set(names)) < len(names):
        raise ValueError(f"two methods of {service.full_name} have the same name: {sorted(names)}")
    unary = [rpc for rpc in service.methods if not is_streaming(rpc)]
    text = "\n".join(line for rpc in unary for line in ("", *_method(api, rpc, kind)))
    noun = service.name.removesuffix("Service")
    lines = [
        HEADER.rstrip(),
        f'"""The methods of {service.full_name} for `{kind.prefix}Client`, without its streams."""',
        "",
        "from __future__ import annotations",
        "",
        "from typing import TYPE_CHECKING, overload",
        "",
        "from commerce.client.generated import methods",
        f"from commerce.client.{kind.folder}.service import {kind.prefix}Service",
        "",
        "if TYPE_CHECKING:",
        # One of the methods is called `list`.
        "    from builtins import list as List",
        "    from collections.abc import Iterable, Mapping",
        "    from decimal import Decimal",
        "    from typing import Unpack",
        "",
        *(f"    {line}" for line in api.imports(text)),
        "",
        f"    from commerce.client.{kind.folder}.pages import {kind.prefix}Pages",
        "    from commerce.client.generated import types",
        "    from commerce.client.generated.types import Interval",
        "    from commerce.client.options import CallOptions, ReadOptions",
        "    from commerce.client.values import Id, Money",
        "",
        "",
        f"class {kind.prefix}{noun}Methods({kind.prefix}Service):",
        f'    """{api.comment(service).split(_PARAGRAPH)[0]}"""'.replace("\n", "\n    "),
    ]
    return "\n".join(lines) + "\n" + text + "\n"


def _method(api: Api, rpc: MethodDescriptor, kind: Kind) -> list[str]:
    resource = resource_of(rpc)
    if resource is not None:
        return _resource_method(api, rpc, kind, resource)
    arguments = [_argument(api, field) for field in rpc.input_type.fields]
    fields = "{" + ", ".join(f'"{argument.name}": {argument.name}' for argument in arguments) + "}"
    constant = f"methods.{constant_name(rpc)}"
    items = next((field for field in rpc.output_type.fields if field.is_repeated), None)
    if "page_token" in rpc.input_type.fields_by_name and items is not None:
        # A list is read when it is iterated over.
        return [
            *_signature(rpc, "def", arguments, f"{kind.prefix}Pages[{class_of(message_of(items))}]"),
            *_docstring(api, rpc, arguments),
            f'        return self._pages({constant}, "{items.name}", {fields}, options)',
        ]
    if rpc.name.startswith("BatchGet") and items is not None:
        note = f"Any number of ids is taken; more than {_MAX_IDS} take several calls, within one time-out."
        return [
            *_signature(rpc, kind.keyword, arguments, f"List[{class_of(message_of(items))}]"),
            *_docstring(api, rpc, arguments, note),
            f'        return {kind.wait}self._batch({constant}, "{items.name}", ids, options)',
        ]
    returned, part = _returned(rpc)
    call = f"{kind.wait}self._call({constant}, {fields}, options)"
    return [
        *_signature(rpc, kind.keyword, arguments, returned),
        *_docstring(api, rpc, arguments),
        *_return(call, returned, part),
    ]


def _resource_method(api: Api, rpc: MethodDescriptor, kind: Kind, resource: str) -> list[str]:
    """Return a method that creates or updates a resource, which is given as fields or as a message."""
    message = message_of(rpc.input_type.fields_by_name[resource])
    updates = rpc.name.startswith("Update")
    changed = _changeable(message) if updates else _creatable(message)
    parts = [_argument(api, field, required=None if not updates else False) for field in changed]
    others = [_argument(api, field) for field in rpc.input_type.fields if field.name != resource]
    returned, part = _returned(rpc)
    class_ = class_of(message)
    if updates:
        target = f"{resource}: {class_} | Id"
        note = (
            f"`{resource}` is its id, or a message: then its etag is a condition of the update. The update mask is "
            "what is given by name, unless `update_mask` says otherwise."
        )
        signature = _signature(rpc, kind.keyword, [*parts, *others], returned, first=target)
    else:
        target = f"{resource}: {class_} | None = None"
        note = f"The fields of the {resource} are given by name, or as a message, or both."
        optional = [Argument(part.name, part.type, required=False, comment="") for part in parts]
        signature = [
            "    @overload",
            *_signature(rpc, kind.keyword, [*parts, *others], returned, first=f"{resource}: None = None", end=" ..."),
            "    @overload",
            *_signature(rpc, kind.keyword, [*optional, *others], returned, first=f"{resource}: {class_}", end=" ..."),
            *_signature(rpc, kind.keyword, [*(_omittable(a) for a in [*parts, *others])], returned, first=target),
        ]
    changes = "{" + ", ".join(f'"{argument.name}": {argument.name}' for argument in parts) + "}"
    fields = "{" + ", ".join(f'"{argument.name}": {argument.name}' for argument in others) + "}"
    function = "_update" if updates else "_create"
    call = [
        f"{kind.wait}self.{function}(",
        f"            methods.{constant_name(rpc)},",
        f'            "{resource}",',
        f"            {resource},",
        f"            {changes},",
        f"            {fields},",
        "            options,",
        "        )",
    ]
    return [*signature, *_docstring(api, rpc, [*parts, *others], note), *_return("\n".join(call), returned, part)]


def _creatable(message: Descriptor) -> list[FieldDescriptor]:
    return [field for field in settable_fields(message) if field.name != "etag"]


def _changeable(message: Descriptor) -> list[FieldDescriptor]:
    return [field for field in settable_fields(message) if IMMUTABLE not in behaviors(field)]


def _argument(api: Api, field: FieldDescriptor, *, required: bool | None = None) -> Argument:
    if required is None:
        required = REQUIRED in behaviors(field)
    return Argument(field.name, argument_type(field), required, _COMMENTS.get(field.name) or api.comment(field))


def _omittable(argument: Argument) -> Argument:
    return Argument(argument.name, argument.type, required=False, comment=argument.comment)


def _signature(
    rpc: MethodDescriptor,
    keyword: str,
    arguments: list[Argument],
    returned: str,
    *,
    first: str | None = None,
    end: str = "",
) -> list[str]:
    positional = [argument for argument in arguments if first is None and argument.name in POSITIONAL]
    named = [argument for argument in arguments if argument not in positional]
    # Those without a default come first, which reads better.
    named.sort(key=lambda argument: not argument.required)
    reads = rpc.GetOptions().idempotency_level == READS
    return [
        f"    {keyword} {method_name(rpc)}(",
        "        self,",
        *([f"        {first},", "        /,"] if first else []),
        *(f"        {_declared(argument)}," for argument in positional),
        *(["        *,"] if named else []),
        *(f"        {_declared(argument)}," for argument in named),
        f"        **options: Unpack[{'ReadOptions' if reads else 'CallOptions'}],",
        f"    ) -> {returned}:{end}",
    ]


def _declared(argument: Argument) -> str:
    if argument.required:
        return f"{argument.name}: {argument.type}"
    if argument.name == "validate_only":
        return "validate_only: bool = False"
    return f"{argument.name}: {argument.type} | None = None"


def _docstring(api: Api, rpc: MethodDescriptor, arguments: list[Argument], *notes: str) -> list[str]:
    options = Argument("options", "", required=False, comment="of the call, such as `timeout` in seconds.")
    return docstring(api.comment(rpc), [*arguments, options], "        ", notes)


def _returned(rpc: MethodDescriptor) -> tuple[str, FieldDescriptor | None]:
    """Return the type that a method returns, and the field of the response that it is, unless it is the response."""
    fields = rpc.output_type.fields
    if not fields:
        return "None", None
    (only,) = fields if len(fields) == 1 else (None,)
    if only is None or only.message_type is None:
        return class_of(rpc.output_type), None
    item = class_of(only.message_type)
    return (f"List[{item}]" if only.is_repeated else item), only


def _return(call: str, returned: str, part: FieldDescriptor | None) -> list[str]:
    if returned == "None":
        return [f"        {call}"]
    if part is None:
        return [f"        return {call}"]
    if part.is_repeated:
        return [f"        response = {call}", f"        return [*response.{part.name}]"]
    return [f"        response = {call}", f"        return response.{part.name}"]
