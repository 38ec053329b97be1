"""How people name a user, an order or a note, and the id that it has."""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click

from commerce.client.errors import CommerceError, InvalidArgument, NotFound

if TYPE_CHECKING:
    from commerce.client.cli.session import Session
    from commerce.users.v1.user_pb2 import User

_ORDER_NUMBER = re.compile(r"#?\s*(?:ord[\s#-]*)?0*(\d{1,19})", re.IGNORECASE | re.ASCII)
# So many users are compared with a part of an e-mail address, and so many are named as those that may be meant.
_COMPARED, _NAMED = 100, 5

# A part of an e-mail address or of a username may be none that anybody can have.
NO_SUCH_USER = (NotFound, InvalidArgument)


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

    >>> order_key("ord-42")
    {'order_number': 'ORD-00000042'}
    >>> order_key("42") == order_key("#42") == order_key("Ord 42") == order_key("ORD-00000042") == order_key("ord-42")
    True
    """
    if is_id(text):
        return {"id": text}
    if number := _ORDER_NUMBER.fullmatch(text.strip()):
        # As the service writes them.
        return {"order_number": f"ORD-{int(number[1]):08}"}
    return {"order_number": text}


def user_id(session: Session, text: str) -> str:
    """Return the id of a user, which is asked for unless the text is one."""
    key = user_key(text)
    if "id" in key:
        return key["id"]
    try:
        return session.client.users.get(**key).id  # type: ignore[arg-type] # one of its arguments
    except NO_SUCH_USER as error:
        return likely_user_id(session, text, error)


def likely_user_id(session: Session, text: str, error: CommerceError) -> str:
    """Return the id of the only user whom a part of an e-mail address can mean.

    Raises:
        CommerceError: the given error, with those who may be meant; one is not enough if the run changes something.
    """
    likely = _likely_users(session, text)
    if len(likely) == 1 and "@" in text and not session.changes:
        (user,) = likely
        session.note(f"{text} is taken for {user.username} ({user.email})")
        return str(user.id)
    for user in likely[:_NAMED]:
        error.add_note(f"{user.username} ({user.email})")
    raise error


def _likely_users(session: Session, text: str) -> list[User]:
    """Return users whom the service finds by the words of a name, or of an address before the @."""
    before, at, _ = text.partition("@")
    if not re.search(r"\w", before):
        return []
    try:
        found = [result.user for result in islice(session.client.users.search(before[:200]), _COMPARED)]
    except CommerceError:
        # Perhaps the caller may not search. That the user was not found is what matters.
        return []
    return [user for user in found if not at or text.casefold() in user.email.casefold()]


def order_id(session: Session, text: str) -> str:
    """Return the id of an order, which is asked for unless the text is one."""
    key = order_key(text)
    return key.get("id") or session.client.orders.get(**key).id  # type: ignore[arg-type] # one of its arguments


def note_id(_: Session, text: str) -> str:
    """Return the id of a note: notes have no other name."""
    if not is_id(text):
        raise click.UsageError(f"{text!r} is not the id of a note")
    return text


KEYS = {"USER": user_key, "ORDER": order_key}
IDS: dict[str, Any] = {"USER": user_id, "ORDER": order_id, "NOTE": note_id}
