"""How people name a user, an order or a note, and the id that it has."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click

if TYPE_CHECKING:
    from commerce.client import Client

_ORDER_NUMBER = re.compile(r"(?:ord-?)?0*(\d{1,19})", re.IGNORECASE)


def is_id(text: str) -> bool:
    """Return whether a text is the id of something."""
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def user_key(text: str) -> dict[str, str]:
    """Return the argument that finds a user: by id, e-mail address or username.

    >>> user_key("ada@example.com"), user_key("ada")
    ({'email': 'ada@example.com'}, {'username': 'ada'})
    """
    if is_id(text):
        return {"id": text}
    # A username has no @.
    return {"email" if "@" in text else "username": text}


def order_key(text: str) -> dict[str, str]:
    """Return the argument that finds an order: by id, or by its number in any spelling.

    >>> order_key("42"), order_key("ord-42"), order_key("ORD-00000042")
    ({'order_number': 'ORD-00000042'}, {'order_number': 'ORD-00000042'}, {'order_number': 'ORD-00000042'})
    """
    if is_id(text):
        return {"id": text}
    if number := _ORDER_NUMBER.fullmatch(text.strip()):
        # As the service writes them.
        return {"order_number": f"ORD-{int(number[1]):08}"}
    return {"order_number": text}


def user_id(client: Client, text: str) -> str:
    """Return the id of a user, which is asked for unless the text is one."""
    key = user_key(text)
    return key.get("id") or client.users.get(**key).id  # type: ignore[arg-type] # one of its arguments


def order_id(client: Client, text: str) -> str:
    """Return the id of an order, which is asked for unless the text is one."""
    key = order_key(text)
    return key.get("id") or client.orders.get(**key).id  # type: ignore[arg-type] # one of its arguments


def note_id(_: Client, text: str) -> str:
    """Return the id of a note: notes have no other name."""
    if not is_id(text):
        raise click.UsageError(f"{text!r} is not the id of a note")
    return text


KEYS = {"USER": user_key, "ORDER": order_key}
IDS: dict[str, Any] = {"USER": user_id, "ORDER": order_id, "NOTE": note_id}
