"""Requests that nobody would write: random messages of any type, changed messages and changed bytes."""

from random import Random
from typing import Any
from uuid import UUID

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

# Text that programs tend to take for something else, or to measure wrongly.
STRINGS = (
    *("", " ", "a", "0", "-1", "null", "é", "e\u0301", "İ", "ß", "ﬁ", "🦊", "👩\u200d👧"),
    *("\u200b", "\u202e", "\ufeff", "\uffff", "\U0010ffff", "\0", "a\0b", "\n", "\r\n", "\t"),
    *("\x1b[31m", "\x7f", "\u0085", "\u2028", "%s%n", "{}", "\\", "'", '"', "'; DROP", "$1", "%", "_"),
    *("a b a b", '"a', "a & | !", "-" * 300, "x" * 1001, "é" * 5000),
    *("EUR", "JPY", "XXX", "eur", "BGN", "v1", "v0", "v99999999999999999999", "not-a-uuid"),
    *("a@example.com", "A@EXAMPLE.COM", "a@b", "@", f"{'a' * 250}@example.com", str(UUID(int=1))),
)
# Before and behind each bound.
_INTEGERS = (0, 1, -1, 2, 10, 499, 500, 501, 1000, 10_000, 10_001, 2**31 - 1, -(2**31), 2**63 - 1, -(2**63))
_LONGEST_LIST = 1200
_DEPTH = 4


class Inputs:
    """Makes requests.

    Args:
        chance: the source of everything random.
        strings: strings of the database, such as ids and e-mails, so that some requests find something.
    """

    def __init__(self, chance: Random, strings: list[str]) -> None:
        self._chance = chance
        self._strings = strings

    def message(self, kind: Descriptor, depth: int = _DEPTH) -> Any:
        """Return a message with random values in random fields."""
        made = GetMessageClass(kind)()
        share = self._chance.choice((0.2, 0.5, 0.9))
        for field in kind.fields:
            if self._chance.random() < share:
                self._set(made, field, depth)
        return made

    def changed(self, message: Message) -> Any:
        """Return a copy of a message in which one or more fields have other values, also in messages inside."""
        copy = type(message)()
        copy.CopyFrom(message)
        for _ in range(self._chance.choice((1, 1, 1, 2, 5))):
            self._change(copy)
        return copy

    def changed_bytes(self, data: bytes) -> bytes:
        """Return the bytes of a message with some of them changed, removed, repeated or added."""
        changed = bytearray(data)
        for _ in range(self._chance.choice((1, 1, 2, 4, 16))):
            at = self._chance.randrange(len(changed) + 1)
            length = self._chance.choice((1, 2, 8, 64))
            kind = self._chance.randrange(6)
            if kind == 0 and at < len(changed):
                changed[at] ^= 1 << self._chance.randrange(8)
            elif kind == 1:
                del changed[at : at + length]
            elif kind == 2:
                changed[at:at] = changed[at : at + length]
            elif kind == 3:
                changed[at:at] = self._chance.randbytes(length)
            elif kind == 4:
                del changed[at:]
            else:
                # An unknown field, which a server that does not know it must skip: number 1000, length-delimited.
                changed += b"\xc2\x3e\x80\x04" + self._chance.randbytes(512)
        return bytes(changed)

    def text(self) -> str:
        """Return a string: of the database, of `STRINGS`, or of random characters."""
        kind = self._chance.random()
        if kind < 0.4 and self._strings:
            return self._chance.choice(self._strings)
        if kind < 0.8:
            return self._chance.choice(STRINGS)
        if kind < 0.85:
            return str(UUID(int=self._chance.getrandbits(128)))
        return "".join(self._character() for _ in range(self._chance.choice((1, 3, 20, 250))))

    def _character(self) -> str:
        code = self._chance.choice((self._chance.randrange(128), self._chance.randrange(0x110000)))
        # A surrogate cannot be encoded.
        return chr(code) if not 0xD800 <= code < 0xE000 else "?"

    def _change(self, message: Message) -> None:
        if not (fields := message.DESCRIPTOR.fields):
            return
        field: Any = self._chance.choice(fields)
        inside = field.message_type and not field.is_repeated and message.HasField(field.name)
        if inside and self._chance.random() < 0.8:
            self._change(getattr(message, field.name))
        elif self._chance.random() < 0.2:
            message.ClearField(field.name)
        else:
            self._set(message, field, _DEPTH)

    def _set(self, message: Any, field: FieldDescriptor, depth: int) -> None:
        if field.message_type and field.message_type.GetOptions().map_entry:
            values = getattr(message, field.name)
            for _ in range(self._count()):
                values[self.text()] = self.text()
        elif field.is_repeated:
            self._fill(getattr(message, field.name), field, depth)
        elif field.message_type:
            if depth:
                getattr(message, field.name).CopyFrom(self.message(field.message_type, depth - 1))
        else:
            setattr(message, field.name, self._value(field))

    def _fill(self, values: Any, field: FieldDescriptor, depth: int) -> None:
        if not field.message_type:
            values.extend(self._value(field) for _ in range(self._count()))
        elif depth:
            # Lists inside long lists would multiply.
            made = [self.message(field.message_type, depth - 1) for _ in range(self._chance.choice((1, 2, 5)))]
            values.extend(made[number % len(made)] for number in range(self._count()))

    def _count(self) -> int:
        return self._chance.choice((0, 1, 1, 2, 3, 10, 51, 101, _LONGEST_LIST if self._chance.random() < 0.1 else 4))

    def _value(self, field: FieldDescriptor) -> Any:
        if field.type == FieldDescriptor.TYPE_STRING:
            return self.text()
        if field.type == FieldDescriptor.TYPE_BOOL:
            return self._chance.random() < 0.5
        if field.type == FieldDescriptor.TYPE_BYTES:
            return self._chance.randbytes(8)
        if field.type == FieldDescriptor.TYPE_ENUM:
            assert field.enum_type
            return self._chance.choice([value.number for value in field.enum_type.values] * 3 + [-1, 99, 2**31 - 1])
        bits = 31 if field.type == FieldDescriptor.TYPE_INT32 else 63
        return max(-(2**bits), min(self._chance.choice(_INTEGERS), 2**bits - 1))
