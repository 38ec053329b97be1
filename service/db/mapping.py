"""Maps the domain's entities to their tables, without the entities knowing (SQLAlchemy imperative mapping)."""

from sqlalchemy.orm import registry, relationship

from service.db.tables import credit_accounts, metadata, order_items, orders, user_profiles, users
from service.domain.credit import CreditAccount
from service.domain.orders import Order, OrderItem
from service.domain.users import Profile, User

_registry = registry(metadata=metadata)


def map_entities() -> None:
    """Map the entities; once in a process."""
    _registry.map_imperatively(Profile, user_profiles)
    _registry.map_imperatively(
        User,
        users,
        exclude_properties=["search"],
        # What a repository did not load is never loaded behind its back.
        properties={"profile": relationship(Profile, lazy="raise", uselist=False, cascade="all, delete-orphan")},
    )
    _registry.map_imperatively(CreditAccount, credit_accounts)
    _registry.map_imperatively(OrderItem, order_items)
    _registry.map_imperatively(
        Order,
        orders,
        properties={
            "items": relationship(
                OrderItem, lazy="raise", order_by=order_items.c.id, cascade="all, delete-orphan", passive_deletes=True
            )
        },
    )


map_entities()
