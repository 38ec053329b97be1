"""Generate what the console knows of the services from `protos/`: `python -m clients.console.generate [OUTPUT]`.

The output is committed, because the server has descriptors without comments, and no compiler of protos. It holds the
services, the messages that their methods use, and their enums, with comments and with the rules of fields: see
`service/http/web/lib/schema.js`, which reads it.
"""

import json
import sys
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2

from clients.openapi.descriptors import Protos
from clients.openapi.examples import example
from clients.openapi.generate import SERVICES, errors_of, reads

OUTPUT = Path(__file__).with_name("schema.json")
HEALTH = "grpc.health.v1.Health"

_RULES = "[buf.validate.field]"
_BEHAVIOR = "[google.api.field_behavior]"
_AUTHORIZATION = "[commerce.common.v1.authorization]"
_REASONS = "commerce.common.v1.ErrorReason"
_PREFIX = "ERROR_REASON_"
_TYPES = {
    number: name.removeprefix("TYPE_").lower()
    for name, number in vars(FieldDescriptor).items()
    if name.startswith("TYPE_")
}
# The package of the health service has descriptors without comments.
_HEALTH_COMMENTS = {
    HEALTH: "The standard health service of gRPC: what load balancers and Kubernetes ask.",
    f"{HEALTH}.Check": "Returns the health of a part of the server.\n\nErrors: NOT_FOUND if there is no such part.",
    f"{HEALTH}.List": "Returns the health of all parts of the server.",
    f"{HEALTH}.Watch": "Streams the health of a part of the server: now, and whenever it changes.",
    "grpc.health.v1.HealthCheckRequest.service": "The part: empty for the process itself, `readiness` for whether it "
    "can serve calls now, or the full name of a service.",
}
_MONEY = {
    "currency_code": "The currency, as in ISO 4217, such as EUR.",
    "units": "The whole units: 12 of 12.50.",
    "nanos": "The rest in billionths: 500000000 of 12.50.",
}
_INTERVAL = {"start_time": "The start, which belongs to it.", "end_time": "The end, which does not belong to it."}
_COMMENTS = (
    _HEALTH_COMMENTS
    | {f"google.type.Money.{name}": comment for name, comment in _MONEY.items()}
    | {f"google.type.Interval.{name}": comment for name, comment in _INTERVAL.items()}
)


def schema() -> dict[str, Any]:
    """Return what the console knows."""
    protos = Protos()
    protos.pool.Add(FileDescriptorProto.FromString(health_pb2.DESCRIPTOR.serialized_pb))
    collected = _Messages(protos)
    services = [
        _service(protos, collected, protos.pool.FindServiceByName(name)) for name in (*reversed(SERVICES), HEALTH)
    ]
    return {
        "services": services,
        "messages": dict(sorted(collected.messages.items())),
        "enums": dict(sorted(collected.enums.items())),
        "reasons": _reasons(protos),
    }


def _comment(protos: Protos, full_name: str) -> str:
    return _COMMENTS.get(full_name) or protos.comment(full_name)


def _service(protos: Protos, collected: "_Messages", service: Any) -> dict[str, Any]:  # noqa: ANN401 - a descriptor of one of two implementations
    methods = [_method(protos, collected, method) for method in service.methods]
    return {"name": service.full_name, "doc": _comment(protos, service.full_name), "methods": methods}


def _method(protos: Protos, collected: "_Messages", method: Any) -> dict[str, Any]:  # noqa: ANN401 - see above
    is_health = method.containing_service.full_name == HEALTH
    comment = _comment(protos, method.full_name)
    described: dict[str, Any] = {
        "name": method.name,
        "doc": "\n\n".join(part for part in comment.split("\n\n") if not part.startswith("Errors:")),
        "input": collected.add(method.input_type),
        "output": collected.add(method.output_type),
        "kind": _kind(method),
        "reads": is_health or reads(method),
        "errors": sorted(set() if is_health else set(errors_of(protos, method))),
        "permission": protos.options(method).get(_AUTHORIZATION, {}).get("permission", ""),
    }
    if not is_health and not method.client_streaming:
        described["example"] = example(protos, method.input_type)
    return described


def _kind(method: Any) -> str:  # noqa: ANN401 - see above
    if method.client_streaming:
        return "client_stream"
    return "server_stream" if method.server_streaming else "unary"


def _reasons(protos: Protos) -> dict[str, Any]:
    found = {}
    for value in protos.pool.FindEnumTypeByName(_REASONS).values[1:]:
        code, _, text = protos.comment(f"{_REASONS}.{value.name}").partition(": ")
        found[value.name.removeprefix(_PREFIX)] = {"code": code, "doc": text[:1].upper() + text[1:]}
    return found


class _Messages:
    """Collects messages and enums, with all that they refer to."""

    def __init__(self, protos: Protos) -> None:
        self._protos = protos
        self.messages: dict[str, Any] = {}
        self.enums: dict[str, Any] = {}

    def add(self, message: Any) -> str:  # noqa: ANN401 - see above
        """Add a message, unless it is one whose JSON is a value of its own; returns its name."""
        name: str = message.full_name
        if name in self.messages or name.startswith("google.protobuf."):
            return name
        described: dict[str, Any] = {"doc": _comment(self._protos, name), "fields": []}
        # Before its fields, which may refer to it.
        self.messages[name] = described
        described["fields"] = [self._field(field) for field in message.fields]
        if oneofs := {oneof.name: self._oneof(oneof) for oneof in message.oneofs if not _is_synthetic(oneof)}:
            described["oneofs"] = oneofs
        return name

    def _oneof(self, oneof: Any) -> dict[str, Any]:  # noqa: ANN401 - see above
        rules = self._protos.options(oneof).get("[buf.validate.oneof]", {})
        return {"doc": self._protos.comment(oneof.full_name), "required": bool(rules.get("required"))}

    def _enum(self, enum: Any) -> str:  # noqa: ANN401 - see above
        name: str = enum.full_name
        if name not in self.enums:
            values = [
                [value.name, _comment(self._protos, f"{name}.{value.name}"), value.number] for value in enum.values
            ]
            self.enums[name] = {"doc": _comment(self._protos, name), "values": values}
        return name

    def _field(self, field: Any) -> dict[str, Any]:  # noqa: ANN401 - see above
        options = self._protos.options(field)
        behavior = options.get(_BEHAVIOR, [])
        rules = options.get(_RULES, {})
        described = {
            "name": field.name,
            "json": field.json_name,
            "doc": _comment(self._protos, field.full_name),
            **self._shape(field),
            "rules": _simplified(rules),
            "required": "REQUIRED" in behavior or bool(rules.get("required")),
            "output": "OUTPUT_ONLY" in behavior,
            "identifier": "IDENTIFIER" in behavior,
            "immutable": "IMMUTABLE" in behavior,
            "secret": bool(options.get("debug_redact")),
            "permission": options.get("[commerce.common.v1.permission_to_set]", ""),
        }
        if field.containing_oneof is not None:
            described["presence" if _is_synthetic(field.containing_oneof) else "oneof"] = field.containing_oneof.name
        return {key: value for key, value in described.items() if value not in (False, "", {})}

    def _shape(self, field: Any) -> dict[str, Any]:  # noqa: ANN401 - see above
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            entry = field.message_type.fields_by_name
            return {"label": "map", "key": _TYPES[entry["key"].type], **self._type(entry["value"])}
        return {"label": "repeated" if field.is_repeated else "", **self._type(field)}

    def _type(self, field: Any) -> dict[str, Any]:  # noqa: ANN401 - see above
        if field.message_type is not None:
            return {"type": "message", "ref": self.add(field.message_type)}
        if field.enum_type is not None:
            return {"type": "enum", "ref": self._enum(field.enum_type)}
        return {"type": _TYPES[field.type]}


def _is_synthetic(oneof: Any) -> bool:  # noqa: ANN401 - see above
    """Return whether a oneof exists only because its one field is `optional`."""
    return len(oneof.fields) == 1 and bool(oneof.name == f"_{oneof.fields[0].name}")


def _simplified(rules: dict[str, Any]) -> dict[str, Any]:
    """Return the rules of a field without the level that only names its type."""
    found: dict[str, Any] = {}
    for name, value in rules.items():
        if name == "repeated":
            found |= {"items": _simplified(value.get("items", {}))} if value.get("items") else {}
            found |= {key: int(value[key]) for key in ("min_items", "max_items") if key in value}
        elif name == "map":
            found |= {key: _simplified(value[key]) for key in ("keys", "values") if key in value}
            found |= {key: int(value[key]) for key in ("min_pairs", "max_pairs") if key in value}
        elif name == "cel":
            found["says"] = [rule["message"] for rule in value]
        elif name == "ignore":
            found["ignore_empty"] = True
        elif name == "required":
            found["required"] = True
        elif isinstance(value, dict):
            # protobuf's JSON has numbers of 64 bits as strings.
            found |= {key: _number(key, rule) for key, rule in value.items()}
    return found


def _number(key: str, rule: Any) -> Any:  # noqa: ANN401 - a rule of any kind
    return int(rule) if key in {"min_len", "max_len", "gt", "gte", "lt", "lte"} else rule


def generate(output: Path) -> None:
    """Write the schema."""
    output.write_text(json.dumps(schema(), ensure_ascii=False, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else OUTPUT)
