"""Maps entities of the domain to their tables, so that the domain imports no SQLAlchemy (imperative mapping).

Orders are not mapped: `service.db.writes.orders` reads and writes them with statements.
"""

from sqlalchemy.orm import registry, relationship

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
        exclude_properties=["search"],
        # A repository says what it loads: SQLAlchemy never loads a profile by itself.
        properties={"profile": relationship(Profile, lazy="raise", uselist=False, cascade="all, delete-orphan")},
    )
    _registry.map_imperatively(CreditAccount, credit_accounts)
    # PostgreSQL computes the column `search`, and only queries of the read side use it.
    _registry.map_imperatively(OrderNote, order_notes, exclude_properties=[order_notes.c.search])


map_entities()
