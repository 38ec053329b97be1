"""JSON schemas of messages and enums, in protobuf's JSON format, with the rules of their fields."""

from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from clients.openapi.descriptors import Protos

Schema = dict[str, Any]

_RULES = "[buf.validate.field]"
_BEHAVIOR = "[google.api.field_behavior]"
# Of types whose JSON is no object, or whose comment is about something else.
_WELL_KNOWN: dict[str, Schema] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {"type": "string", "pattern": "^-?[0-9]+(\\.[0-9]{1,9})?s$"},
    "google.protobuf.FieldMask": {
        "type": "string",
        "description": "The names of fields in lowerCamelCase, separated by commas, such as `email,profile.avatarUrl`.",
    },
}
_SIGNED = {FieldDescriptor.CPPTYPE_INT32: "int32", FieldDescriptor.CPPTYPE_INT64: "int64"}
_LARGE = {FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64}
# The patterns of the protos with classes of Unicode, which not every implementation of JSON Schema knows, and the same
# without: \p{Cc} is two ranges.
_PATTERNS = {
    r"^\P{Cc}*$": r"^[^\u0000-\u001f\u007f-\u009f]*$",
    r"^[\r\n\t\P{Cc}]*$": r"^[^\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f]*$",
    r"^https?://[^\s\p{Cc}]+$": r"^https?://[^\s\u0000-\u001f\u007f-\u009f]+$",
}
_NUMBERS = {"gte": "minimum", "lte": "maximum", "gt": "exclusiveMinimum", "lt": "exclusiveMaximum"}


class Schemas:
    """Collects the schemas of all messages and enums that are referred to.

    Attributes:
        schemas: by the full names of their protos.
    """

    def __init__(self, protos: Protos) -> None:
        self._protos = protos
        self.schemas: dict[str, Schema] = {}

    def reference(self, message: Any) -> Schema:  # noqa: ANN401 - a descriptor of one of two implementations
        """Return a reference to the schema of a message, or the schema itself of a well-known type."""
        if message.full_name in _WELL_KNOWN:
            return dict(_WELL_KNOWN[message.full_name])
        if message.full_name not in self.schemas:
            # Before its fields, which may refer to it.
            self.schemas[message.full_name] = {}
            self.schemas[message.full_name] = self._of_message(message)
        return {"$ref": f"#/components/schemas/{message.full_name}"}

    def add_enum(self, enum: Any) -> Schema:  # noqa: ANN401 - see above
        """Return a reference to the schema of an enum."""
        if enum.full_name not in self.schemas:
            lines = [self._protos.comment(enum.full_name), ""]
            lines += [
                f"- `{value.name}`: {self._protos.comment(f'{enum.full_name}.{value.name}')}" for value in enum.values
            ]
            names = [value.name for value in enum.values]
            self.schemas[enum.full_name] = {"type": "string", "enum": names, "description": "\n".join(lines).strip()}
        return {"$ref": f"#/components/schemas/{enum.full_name}"}

    def _of_message(self, message: Any) -> Schema:  # noqa: ANN401 - see above
        fields = {field.json_name: self._of_field(field) for field in message.fields}
        schema: Schema = {"type": "object", "properties": fields}
        if description := self._protos.comment(message.full_name):
            schema["description"] = description
        is_request = message.name.endswith("Request")
        if is_request:
            # An unknown field of a request is refused.
            schema["additionalProperties"] = False
            required = [field.json_name for field in message.fields if self._is_required(field)]
            if required:
                schema["required"] = required
        for oneof in message.oneofs:
            names = [field.json_name for field in oneof.fields]
            rules = self._protos.options(oneof).get("[buf.validate.oneof]", {})
            if is_request and rules.get("required"):
                schema["oneOf"] = [{"required": [name]} for name in names]
            elif len(names) > 1:
                schema["description"] = f"{schema.get('description', '')} At most one of {', '.join(names)}.".strip()
        return schema

    def _is_required(self, field: Any) -> bool:  # noqa: ANN401 - see above
        options = self._protos.options(field)
        return bool(options.get(_RULES, {}).get("required")) or "REQUIRED" in options.get(_BEHAVIOR, [])

    def _of_field(self, field: Any) -> Schema:  # noqa: ANN401 - see above
        options = self._protos.options(field)
        rules = options.get(_RULES, {})
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            schema = self._of_map(field, rules.get("map", {}))
        elif field.is_repeated:
            of_list = rules.get("repeated", {})
            schema = {"type": "array", "items": self._of_value(field, of_list.get("items", {}))}
            _take(schema, of_list, {"min_items": "minItems", "max_items": "maxItems"})
        else:
            schema = self._of_value(field, rules)
        if description := self._protos.comment(field.full_name):
            schema["description"] = description
        for rule in rules.get("cel", []):
            schema["description"] = f"{schema.get('description', '')} It {rule['message']}.".strip()
        if "OUTPUT_ONLY" in options.get(_BEHAVIOR, []):
            schema["readOnly"] = True
        if options.get("debug_redact"):
            schema["writeOnly"] = True
            schema["format"] = "password"
        if permission := options.get("[commerce.common.v1.permission_to_set]"):
            schema["x-permission-to-set"] = permission
        return schema

    def _of_map(self, field: Any, rules: dict[str, Any]) -> Schema:  # noqa: ANN401 - see above
        entry = field.message_type.fields_by_name
        schema: Schema = {
            "type": "object",
            "additionalProperties": self._of_value(entry["value"], rules.get("values", {})),
        }
        names = self._of_value(entry["key"], rules.get("keys", {}))
        if len(names) > 1:
            schema["propertyNames"] = names
        _take(schema, rules, {"max_pairs": "maxProperties"})
        return schema

    def _of_value(self, field: Any, rules: dict[str, Any]) -> Schema:  # noqa: ANN401 - see above
        if field.message_type is not None:
            return self.reference(field.message_type)
        if field.enum_type is not None:
            return self.add_enum(field.enum_type)
        if field.type == FieldDescriptor.TYPE_BYTES:
            return {"type": "string", "contentEncoding": "base64"}
        return _of_scalar(field.cpp_type, rules)


def _of_scalar(kind: int, rules: dict[str, Any]) -> Schema:
    match kind:
        case FieldDescriptor.CPPTYPE_STRING:
            return _of_string(rules.get("string", {}))
        case FieldDescriptor.CPPTYPE_BOOL:
            return {"type": "boolean", **rules.get("bool", {})}
        case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
            return {"type": "number"}
        case _:
            return _of_integer(kind, rules)


def _of_integer(kind: int, rules: dict[str, Any]) -> Schema:
    # In 64 bits, responses have strings, because JavaScript's numbers are too small; requests may have numbers.
    schema: Schema = {"type": ["string", "integer"] if kind in _LARGE else "integer"}
    if kind in _SIGNED:
        schema["format"] = _SIGNED[kind]
    else:
        schema["minimum"] = 0
    of_kind = rules.get("int64" if kind in _LARGE else "int32", {})
    for rule, keyword in _NUMBERS.items():
        if rule in of_kind:
            schema[keyword] = int(of_kind[rule])
    return schema


def _of_string(rules: dict[str, Any]) -> Schema:
    schema: Schema = {"type": "string"}
    if rules.get("uuid"):
        schema["format"] = "uuid"
    if rules.get("email"):
        schema["format"] = "email"
    _take(schema, rules, {"min_len": "minLength", "max_len": "maxLength"})
    if pattern := rules.get("pattern"):
        schema["pattern"] = _PATTERNS.get(pattern, pattern)
    return schema


def _take(schema: Schema, rules: dict[str, Any], keywords: dict[str, str]) -> None:
    for rule, keyword in keywords.items():
        if rule in rules:
            # protobuf's JSON has numbers of 64 bits as strings.
            schema[keyword] = int(rules[rule])
