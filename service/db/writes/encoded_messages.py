"""What is kept in rows as the API sends it, so that readers need not make it (docs/adr/0019-rows-are-kept-as-sent.md).

Bytes of messages: this layer keeps them, and does not know what is in them. Whoever writes a row writes its message,
too, and says so in its transaction; triggers named forget_… set to null what somebody else leaves behind.
"""

from collections.abc import Callable
from dataclasses import dataclass

from service.application.ports.unit_of_work import EncodedOrder
from service.domain.orders import Order
from service.domain.users import User

# What a transaction says: a setting of PostgreSQL, and which form of the messages it keeps. A field that a later
# release adds makes it another form, and the triggers then forget what is written in this one.
MESSAGE_VERSION_SETTING = "commerce.keeps_messages"
MESSAGE_VERSION = "1"


@dataclass(frozen=True, slots=True)
class MessageEncoders:
    """Makes what is kept.

    Attributes:
        order: returns an order, as an Order message.
        user: returns a user, as a User message.
    """

    order: Callable[[Order | EncodedOrder], bytes]
    user: Callable[[User], bytes]
