"""Encoded messages: the protobuf bytes of users and orders, stored in their rows (ADR 19).

Readers send these bytes instead of building a message from columns. This layer stores them and does not know what is in
them. A transaction that writes a user or an order also writes its encoded message, and says so by a setting of
PostgreSQL. If the setting is missing, or names another version of the messages, the triggers invalidate_… set the
column to null, and readers build the message from the columns.
"""

from collections.abc import Callable
from dataclasses import dataclass

from service.application.ports.unit_of_work import EncodedOrder
from service.domain.orders import Order
from service.domain.users import User

# The setting, and the version of the messages. A release that adds a field to a user or an order increases the version,
# so that the triggers invalidate what a server of the previous release writes.
MESSAGE_VERSION_SETTING = "commerce.keeps_messages"
MESSAGE_VERSION = "1"


@dataclass(frozen=True, slots=True)
class MessageEncoders:
    """Functions that make encoded messages.

    Attributes:
        order: returns an order as an encoded Order message, or None to store none.
        user: returns a user as an encoded User message, or None to store none.
    """

    order: Callable[[Order | EncodedOrder], bytes | None]
    user: Callable[[User], bytes | None]


# For a service that stores no encoded messages: all readers build messages from columns.
NO_ENCODED_MESSAGES = MessageEncoders(order=lambda _order: None, user=lambda _user: None)
