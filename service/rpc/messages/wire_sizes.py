"""Checks of the sizes in a serialized message against the `buf.validate` rules of its proto, before it is parsed.

Parsing and validating take time and memory for each element, also for those above a limit. So sizes are read from the
bytes first, and the reading ends with the first field that has too many elements, and after `MAX_FIELDS` fields: what a
request costs until it is refused does not depend on its size.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from service.domain.errors import FieldViolation

# Several times the number of fields in the largest valid request.
MAX_FIELDS = 10_000
# The maximum size of a string without a rule, such as one of a message of Google's, or one that only the server sets.
MAX_STRING_BYTES = 256 * 1024
_MAX_VIOLATIONS = 10
# A character has at most four bytes in UTF-8.
_BYTES_PER_CHARACTER = 4
# A shorter message without repeated fields is cheap with any content, so it is not looked into.
_SHORT = 1024
_MAX_DEPTH = 100

_VARINT, _FIXED64, _LENGTH, _START_GROUP, _END_GROUP, _FIXED32 = range(6)
_MAX_VARINT_BYTES = 10
_SHORT_VARINT_BYTES = 4
# Of a tag, and of the size of a string or message.
_MAX_SIZE_BYTES = 5
# The bit of every byte of a varint except its last; and all bytes with it.
_CONTINUES = 0x80
_CONTINUED = bytes(range(_CONTINUES, 0x100))
_STRINGS = (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)
_FIXED_BYTES = {
    **dict.fromkeys((FieldDescriptor.TYPE_FIXED32, FieldDescriptor.TYPE_SFIXED32, FieldDescriptor.TYPE_FLOAT), 4),
    **dict.fromkeys((FieldDescriptor.TYPE_FIXED64, FieldDescriptor.TYPE_SFIXED64, FieldDescriptor.TYPE_DOUBLE), 8),
}

# Numbers of fields in buf/validate/validate.proto. Generated code carries the rules as an unknown field.
_FIELD_RULES = 1159
_STRING_RULES, _REPEATED_RULES, _MAP_RULES, _IGNORE = 14, 18, 19, 27
_IGNORE_ALWAYS = 3
_STRING_MAX_LEN, _STRING_MAX_BYTES, _STRING_UUID = 3, 5, 22
_MAX_ITEMS = _MAX_PAIRS = 2
_ITEMS, _KEYS, _VALUES = 4, 4, 5
_UUID_CHARACTERS = 36

_Rules = Mapping[int, Any]


@dataclass(frozen=True, slots=True)
class _Limit:
    """The maximum number of elements of a field, or of bytes of a string; and the violation of the rule."""

    maximum: int
    description: str
    rule: str


@dataclass(frozen=True, slots=True)
class _Field:
    """What is checked of a field.

    Attributes:
        name: of the field.
        count: the maximum number of elements.
        size: the maximum size of each string.
        packed: the number of bytes of each element if the elements can be packed: 0 if it varies, None if they cannot.
        inner: the fields of the message in this field.
    """

    name: str
    count: _Limit | None
    size: _Limit | None
    packed: int | None
    inner: "_Fields | None"


@dataclass(slots=True)
class _Fields:
    """What is checked of the fields of a message, by field number.

    Attributes:
        by_number: the fields.
        flat: whether no field is repeated, at any depth.
        is_entry: whether the message is an entry of a map, whose fields a caller does not see.
    """

    by_number: dict[int, _Field]
    flat: bool
    is_entry: bool = False


def size_violations(descriptor: Descriptor, data: bytes) -> list[FieldViolation]:
    """Return the first sizes in a serialized message that its rules do not allow.

    A string is only found if its bytes are too many for any text of the maximum length.

    Raises:
        DecodeError: the bytes are not a message.
    """
    reading = _Reading(data)
    try:
        reading.read(_fields_of(descriptor), 0, len(data), "", 0)
    except _EnoughRead:
        pass
    except IndexError as error:
        raise DecodeError("cut off") from error
    return reading.violations


class _EnoughRead(Exception):
    """What was read is enough to refuse the message."""


class _Reading:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._fields_left = MAX_FIELDS
        self.violations: list[FieldViolation] = []

    def read(  # noqa: C901, PLR0912 - a call for each field would take as long as the rest
        self, fields: _Fields, position: int, end: int, path: str, depth: int
    ) -> None:
        """Check the message in `data[position:end]`."""
        if depth > _MAX_DEPTH:
            raise DecodeError("nested too deeply")
        data, by_number = self._data, fields.by_number
        counts: Counter[int] = Counter()
        groups = 0
        while position < end:
            self._take(1)
            tag = data[position]
            position += 1
            if tag >= _CONTINUES:
                tag, position = self._varint(position - 1)
            number, kind = tag >> 3, tag & 7
            # Fields inside a group are not fields of this message.
            field = None if groups else by_number.get(number)
            if kind == _LENGTH:
                size, position = self._varint(position)
                if position + size > end:
                    raise DecodeError("cut off")
                if field:
                    self._check(field, counts, number, position, size, path, depth)
                position += size
            elif kind == _VARINT:
                start = position
                while data[position] >= _CONTINUES:
                    position += 1
                position += 1
                if position - start > _SHORT_VARINT_BYTES:
                    # A long one takes as much time to skip as another field.
                    self._take(1)
                    if position - start > _MAX_VARINT_BYTES:
                        raise DecodeError("not a varint")
                if field and field.count:
                    self._count(field, counts, number, 1, path)
            elif kind == _FIXED64:
                position += 8
            elif kind == _FIXED32:
                position += 4
            elif kind == _START_GROUP:
                groups += 1
            elif kind == _END_GROUP and groups:
                groups -= 1
            else:
                raise DecodeError("not a field")
        if position > end or groups:
            raise DecodeError("cut off")

    def _check(
        self, field: _Field, counts: Counter[int], number: int, position: int, size: int, path: str, depth: int
    ) -> None:
        if field.count or field.packed is not None:
            elements = 1 if field.packed is None else self._packed(field.packed, position, size)
            self._count(field, counts, number, elements, path)
            self._take(elements - 1)
        if field.size and size > field.size.maximum:
            index = f"[{counts[number] - 1}]" if field.count else ""
            self._refuse(f"{path}{field.name}{index}", field.size)
        if (inner := field.inner) and not (inner.flat and size <= _SHORT):
            index = f"[{counts[number] - 1}]" if field.count else ""
            inside = f"{path}{field.name}" if inner.is_entry else f"{path}{field.name}{index}."
            self.read(inner, position, position + size, inside, depth + 1)

    def _count(self, field: _Field, counts: Counter[int], number: int, elements: int, path: str) -> None:
        before = counts[number]
        counts[number] = before + elements
        if field.count and before <= field.count.maximum < before + elements:
            self._refuse(f"{path}{field.name}", field.count)
            # A message with too many elements is seldom made by a mistake that other violations would explain.
            raise _EnoughRead

    def _packed(self, element_bytes: int, position: int, size: int) -> int:
        if element_bytes:
            return size // element_bytes
        # Many more than can be taken are not worth counting.
        counted = self._data[position : position + min(size, _MAX_VARINT_BYTES * MAX_FIELDS)]
        return len(counted.translate(None, _CONTINUED))

    def _take(self, fields: int) -> None:
        self._fields_left -= fields
        if self._fields_left < 0:
            if not self.violations:
                self.violations.append(FieldViolation("", f"must contain at most {MAX_FIELDS} fields and elements"))
            raise _EnoughRead

    def _refuse(self, path: str, limit: _Limit) -> None:
        self.violations.append(FieldViolation(path, limit.description, limit.rule))
        if len(self.violations) >= _MAX_VIOLATIONS:
            raise _EnoughRead

    def _varint(self, position: int) -> tuple[int, int]:
        """Return the tag or size at a position, and the position after it."""
        value = self._data[position]
        if value < _CONTINUES:
            return value, position + 1
        value &= 0x7F
        for length in range(1, _MAX_SIZE_BYTES):
            byte = self._data[position + length]
            value |= (byte & 0x7F) << 7 * length
            if byte < _CONTINUES:
                return value, position + length + 1
        raise DecodeError("not a tag or size")


@cache
def _fields_of(descriptor: Descriptor, *, ruled: bool = True) -> _Fields:
    fields = _Fields({}, flat=True)
    for field in descriptor.fields:
        rules = _rules_of(field) if ruled else {}
        # ImportUsers checks each row by itself, so an invalid one must not end the call.
        inner_ruled = ruled and rules.get(_IGNORE) != _IGNORE_ALWAYS
        inner = None
        if field.message_type and field.message_type.GetOptions().map_entry:
            inner = _entry_fields(field.message_type, _submessage(rules, _MAP_RULES), ruled=inner_ruled)
        elif field.message_type:
            inner = _fields_of(field.message_type, ruled=inner_ruled)
        fields.by_number[field.number] = _Field(
            field.name,
            _count_limit(field, rules),
            _size_limit(field, rules) if ruled else None,
            _FIXED_BYTES.get(field.type, 0) if _packable(field) else None,
            inner,
        )
        fields.flat = fields.flat and not field.is_repeated and (inner is None or inner.flat)
    return fields


def _entry_fields(entry: Descriptor, rules: _Rules, *, ruled: bool) -> _Fields:
    """Return what is checked of an entry of a map: `rules` are the map's."""
    checked = {1: _submessage(rules, _KEYS), 2: _submessage(rules, _VALUES)}
    by_number = {
        field.number: _Field("", None, _string_limit(checked[field.number]), None, None)
        for field in entry.fields
        if ruled and field.type in _STRINGS
    }
    return _Fields(by_number, flat=True, is_entry=True)


def _count_limit(field: FieldDescriptor, rules: _Rules) -> _Limit | None:
    if not field.is_repeated:
        return None
    if maximum := _submessage(rules, _MAP_RULES).get(_MAX_PAIRS):
        return _Limit(maximum, f"map must be at most {maximum} entries", "MAP_MAX_PAIRS")
    if maximum := _submessage(rules, _REPEATED_RULES).get(_MAX_ITEMS):
        return _Limit(maximum, f"must contain no more than {maximum} item(s)", "REPEATED_MAX_ITEMS")
    return _Limit(MAX_FIELDS, f"must contain no more than {MAX_FIELDS} item(s)", "REPEATED_MAX_ITEMS")


def _size_limit(field: FieldDescriptor, rules: _Rules) -> _Limit | None:
    if field.type not in _STRINGS:
        return None
    return _string_limit(_submessage(_submessage(rules, _REPEATED_RULES), _ITEMS) if field.is_repeated else rules)


def _string_limit(rules: _Rules) -> _Limit:
    string = _submessage(rules, _STRING_RULES)
    if string.get(_STRING_UUID):
        return _Limit(_UUID_CHARACTERS, "must be a valid UUID", "STRING_UUID")
    if maximum := string.get(_STRING_MAX_LEN):
        return _Limit(maximum * _BYTES_PER_CHARACTER, f"must be at most {maximum} characters", "STRING_MAX_LEN")
    maximum = string.get(_STRING_MAX_BYTES) or MAX_STRING_BYTES
    return _Limit(maximum, f"must be at most {maximum} bytes", "STRING_MAX_BYTES")


def _packable(field: FieldDescriptor) -> bool:
    return field.is_repeated and not field.message_type and field.type not in _STRINGS


def _rules_of(field: FieldDescriptor) -> _Rules:
    rules = _values(field.GetOptions()).get(_FIELD_RULES)
    return _parsed(rules) if rules else {}


def _submessage(rules: _Rules, number: int) -> _Rules:
    data = rules.get(number)
    return _parsed(data) if data else {}


def _parsed(data: bytes) -> _Rules:
    # A message without fields, so that all are unknown.
    return _values(Empty.FromString(data))


def _values(message: Message) -> _Rules:
    """Return the values of the unknown fields of a message, by field number."""
    fields = UnknownFieldSet(message)
    return {fields[index].field_number: fields[index].data for index in range(len(fields))}
