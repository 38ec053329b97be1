"""What is kept in rows as the API sends it, so that readers need not make it (docs/adr/0018, 0019).

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
        items: returns the items of an order, as an Order message that has nothing else.
        user: returns a user, as a User message.
    """

    items: Callable[[Order], bytes]
    user: Callable[[User], bytes]
