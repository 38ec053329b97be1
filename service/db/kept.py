"""What is kept in rows as the API sends it, so that readers need not make it (docs/adr/0019-rows-are-kept-as-sent.md).

Bytes of messages: this layer keeps them, and does not know what is in them.
"""

from collections.abc import Callable
from dataclasses import dataclass

from service.domain.orders import Order
from service.domain.users import User


@dataclass(frozen=True, slots=True)
class KeptMessages:
    """Makes what is kept.

    Attributes:
        order: returns an order, as an Order message.
        user: returns a user, as a User message.
    """

    order: Callable[[Order], bytes]
    user: Callable[[User], bytes]
