"""Run the migrations: online on an asyncio engine, or offline as SQL (`alembic upgrade head --sql`)."""

import asyncio
from typing import Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlalchemy import Connection, event
from sqlalchemy.dialects.postgresql.base import ischema_names
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.exc import DBAPIError

from service.config import DatabaseSettings, load
from service.db.connections.engine import async_url, create_migration_engine
from service.db.errors import sqlstate_of
from service.db.tables import metadata
from service.db.types import EnumText, Xid8

# Lets `alembic check` compare columns of this type.
ischema_names["xid8"] = Xid8

# While a migration waits for a lock, every later query of the table waits behind it. So give up soon, and try again.
LOCK_TIMEOUT = "SET lock_timeout = '100ms'"
LOCK_ATTEMPTS = 150
LOCK_PAUSE_SECONDS = 0.3
LOCK_NOT_AVAILABLE = "55P03"
# What is done CONCURRENTLY waits until all older transactions have ended, and nothing waits behind it. Beside long ones
# it would never succeed if it gave up, and each time it would leave an invalid index.
NO_LOCK_TIMEOUT = "SET lock_timeout = 0"


def render_item(kind: str, item: object, _context: AutogenContext) -> str | Literal[False]:
    """Render EnumText as TEXT in new revisions, because the members of the enum may change with the code."""
    return "sa.Text()" if kind == "type" and isinstance(item, EnumText) else False


def run_offline() -> None:
    """Write the SQL to standard output."""
    context.configure(
        dialect_name="postgresql", target_metadata=metadata, literal_binds=True, transaction_per_migration=True
    )
    with context.begin_transaction():
        context.execute(LOCK_TIMEOUT)
        context.run_migrations()


def set_lock_timeout(connection: Connection, cursor: DBAPICursor, statement: str, *_: object) -> None:
    """Set how long a statement, which is to be executed next, may wait for a lock."""
    wanted = NO_LOCK_TIMEOUT if " CONCURRENTLY " in statement else LOCK_TIMEOUT
    if connection.info.get("lock_timeout") != wanted:
        cursor.execute(wanted)
        connection.info["lock_timeout"] = wanted


def migrate(connection: Connection) -> None:
    """Run the migrations, each in a transaction of its own, so that a retry continues where it stopped."""
    event.listen(connection, "before_cursor_execute", set_lock_timeout)
    context.configure(
        connection=connection, target_metadata=metadata, transaction_per_migration=True, render_item=render_item
    )
    with context.begin_transaction():
        context.run_migrations()


async def run_online() -> None:
    """Run the migrations on the database in Alembic's configuration, or else on that of the settings."""
    url = context.config.attributes.get("url") or async_url(load(DatabaseSettings).database_url.get_secret_value())
    engine = create_migration_engine(url)
    for attempt in range(1, LOCK_ATTEMPTS + 1):
        try:
            async with engine.connect() as connection:
                await connection.run_sync(migrate)
        except DBAPIError as error:
            if sqlstate_of(error) != LOCK_NOT_AVAILABLE or attempt == LOCK_ATTEMPTS:
                raise
            await asyncio.sleep(LOCK_PAUSE_SECONDS)
        else:
            return


if context.is_offline_mode():
    run_offline()
else:
    asyncio.run(run_online())
