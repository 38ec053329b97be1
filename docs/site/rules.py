"""The rules of fields in words. They are those of `clients.console.generate`, which reads them from the protos."""

from collections.abc import Iterator, Mapping
from typing import Any

# What a field must be, by the name of the rule; `{}` stands for its value.
_PHRASES = {
    "uuid": "a UUID",
    "email": "an email address",
    "pattern": "pattern `{}`",
    "const": "only `{}`",
    "defined_only": "a value of the enum",
    "not_in": "not {}",
}
# What rules such as `min_len` and `max_items` count.
_COUNTED = {"len": "characters", "items": "elements", "pairs": "entries"}
_PARTS = {"items": "each element", "keys": "each key", "values": "each value"}
_ELSEWHERE = {"gte", "lte", "says", "required", "ignore_empty"}
_KNOWN = {*_PHRASES, *_PARTS, *_ELSEWHERE, *(f"{bound}_{unit}" for bound in ("min", "max") for unit in _COUNTED)}
# The number of the value that an enum has if it is not set.
_UNSPECIFIED = [0]


def flags_of(field: Mapping[str, Any]) -> list[str]:
    """Return what a caller has to know to set a field, in words.

    >>> flags_of({"required": True, "rules": {"uuid": True}})
    ['required', 'a UUID']
    >>> flags_of({"output": True, "rules": {}})
    ['set by the server']
    """
    is_required = bool(field.get("required"))
    return [*_behavior(field), *rules_in_words(field.get("rules", {}), is_required=is_required)]


def _behavior(field: Mapping[str, Any]) -> Iterator[str]:
    if field.get("output"):
        yield "set by the server"
    if field.get("required"):
        yield "required"
    if field.get("identifier"):
        yield "identifies the resource"
    if field.get("immutable"):
        yield "cannot be changed later"
    if field.get("secret"):
        yield "secret: never logged"
    if permission := field.get("permission"):
        yield f"needs `{permission}`"
    if field.get("presence"):
        yield "optional"
    if oneof := field.get("oneof"):
        yield f"one of `{oneof}`"


def rules_in_words(rules: Mapping[str, Any], *, is_required: bool = False) -> list[str]:
    """Return rules in words.

    >>> rules_in_words({"min_len": 1, "max_len": 200})
    ['1 to 200 characters']
    >>> rules_in_words({"items": {"uuid": True}, "max_items": 100})
    ['at most 100 elements', 'each element: a UUID']
    >>> rules_in_words({"gte": 0, "ignore_empty": True})
    ['at least 0', 'or empty']
    >>> rules_in_words({"not_in": [0], "defined_only": True})
    ['a value of the enum', 'not unspecified']

    Raises:
        ValueError: a rule has no words here.
    """
    if unknown := set(rules) - _KNOWN:
        raise ValueError(f"rules without words: {', '.join(sorted(unknown))}")
    words = [phrase.format(_shown(rules[name])) for name, phrase in _PHRASES.items() if name in rules]
    words += _bounds(rules.get("gte"), rules.get("lte"))
    for unit, counted in _COUNTED.items():
        words += _bounds(rules.get(f"min_{unit}"), rules.get(f"max_{unit}"), f" {counted}")
    for name, part in _PARTS.items():
        if name in rules and (inner := rules_in_words(rules[name])):
            words.append(f"{part}: {', '.join(inner)}")
    words += rules.get("says", ())
    return [*words, "or empty"] if rules.get("ignore_empty") and not is_required else words


def _shown(value: object) -> str:
    if value == _UNSPECIFIED:
        return "unspecified"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _bounds(low: int | None, high: int | None, counted: str = "") -> Iterator[str]:
    """Yield the words of a lower and an upper bound, of which both can be absent."""
    if low is not None and high is not None:
        yield f"{low} to {high}{counted}"
    elif low is not None:
        yield f"at least {low}{counted}"
    elif high is not None:
        yield f"at most {high}{counted}"
