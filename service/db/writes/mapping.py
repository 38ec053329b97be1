"""Maps entities of the domain to their tables, so that the domain imports no SQLAlchemy (imperative mapping).

Orders are not mapped: `service.db.writes.orders` reads and writes them with statements.
"""

from sqlalchemy.orm import deferred, registry, relationship

from service.db.tables import credit_accounts, metadata, order_notes, user_profiles, users
from service.domain.credit import CreditAccount
from service.domain.notes import OrderNote
from service.domain.users import Profile, User

_registry = registry(metadata=metadata)


def map_entities() -> None:
    """Map the entities; called once in a process."""
    _registry.map_imperatively(Profile, user_profiles)
    _registry.map_imperatively(
        User,
        users,
        properties={
            # Written, and never read.
            "search": deferred(users.c.search, raiseload=True),
            # A repository says what it loads: SQLAlchemy never loads a profile by itself.
            "profile": relationship(Profile, lazy="raise", uselist=False, cascade="all, delete-orphan"),
        },
    )
    _registry.map_imperatively(CreditAccount, credit_accounts)
    _registry.map_imperatively(
        OrderNote, order_notes, properties={"search": deferred(order_notes.c.search, raiseload=True)}
    )


map_entities()
