"""Maps the domain's entities to their tables, without the entities knowing (SQLAlchemy imperative mapping).

Orders are not among them: `service.db.writes.orders` writes them by statements.
"""

from sqlalchemy.orm import registry, relationship

from service.db.tables import credit_accounts, metadata, order_notes, user_profiles, users
from service.domain.credit import CreditAccount
from service.domain.notes import OrderNote
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
    # The database fills the column that is searched, and only its queries read it.
    _registry.map_imperatively(OrderNote, order_notes, exclude_properties=[order_notes.c.search])


map_entities()
