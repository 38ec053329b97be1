"""Let triggers find their tables while a dump is restored."""

from collections.abc import Sequence

from alembic import op

revision: str = "0020"
down_revision: str | None = "0019"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

# The functions of triggers that use tables or functions of ours. The dumps of pg_dump set search_path to nothing, so
# these would not be found.
FUNCTIONS = (
    "check_order_total",
    "check_credit_balanced",
    "set_user_search",
    "set_user_search_of_profile",
    "order_tag_create_time",
    "invalidate_user_message_of_profile",
    "invalidate_order_message_of_part",
    "invalidate_order_messages_of_tag",
    "invalidate_items_messages",
    "follow_previous_event",
)
# The schema is that of the tables: with `options` in DATABASE_URL, it may be another one than `public`.
SET_SEARCH_PATH = """
DO $$
BEGIN
    EXECUTE 'ALTER FUNCTION {function}() SET search_path = ' || quote_ident(current_schema()) || ', pg_temp';
END
$$
"""


def upgrade() -> None:
    """Upgrade the schema from the previous revision to this one."""
    for function in FUNCTIONS:
        op.execute(SET_SEARCH_PATH.format(function=function))


def downgrade() -> None:
    """Undo the upgrade."""
    for function in FUNCTIONS:
        op.execute(f"ALTER FUNCTION {function}() RESET search_path")
