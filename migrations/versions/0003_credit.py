"""Create the credit ledger, and the columns of orders that are paid with credit."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


# Checked when the transaction commits, because each entry may be written by a separate statement.
BALANCED_FUNCTION = """
CREATE FUNCTION check_credit_balanced() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT FROM credit_entries WHERE transaction_id = NEW.transaction_id GROUP BY currency HAVING sum(amount) <> 0
    ) THEN
        RAISE EXCEPTION 'the entries of a transaction do not add up to zero'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'credit_balanced', TABLE = 'credit_entries';
    END IF;
    RETURN NULL;
END
$$
"""
BALANCED_TRIGGER = """
CREATE CONSTRAINT TRIGGER credit_balanced AFTER INSERT ON credit_entries
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_credit_balanced()
"""
APPEND_ONLY_TRIGGER = """
CREATE TRIGGER credit_entries_append_only BEFORE UPDATE ON credit_entries
FOR EACH STATEMENT EXECUTE FUNCTION refuse_update()
"""
# Not validated here: that reads the whole table, and would hold the lock meanwhile. Revision 0004 does it.
ORDER_CREDIT_USER = """
ALTER TABLE orders ADD CONSTRAINT fk_orders_credit_user_id_users
FOREIGN KEY (credit_user_id) REFERENCES users (id) NOT VALID
"""
ORDER_CREDIT_CHECK = """
ALTER TABLE orders ADD CONSTRAINT ck_orders_credit CHECK (
    CASE WHEN credit_state IS NULL THEN num_nonnulls(credit_user_id, credit_expire_time) = 0
    ELSE credit_user_id IS NOT NULL AND credit_state IN ('HELD', 'POSTED', 'VOIDED', 'REVERSED', 'EXPIRED')
    AND (credit_state = 'HELD') = (credit_expire_time IS NOT NULL) END
) NOT VALID
"""


def upgrade() -> None:
    """Upgrade the schema from the previous revision to this one."""
    op.create_table(
        "credit_accounts",
        sa.Column("user_id", sa.UUID(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("available", sa.Numeric(precision=19, scale=4), nullable=False),
        sa.Column("held", sa.Numeric(precision=19, scale=4), nullable=False),
        sa.CheckConstraint("currency ~ '^[A-Z]{3}$'", name=op.f("ck_credit_accounts_currency")),
        sa.CheckConstraint("available >= 0", name=op.f("ck_credit_accounts_available")),
        sa.CheckConstraint("held >= 0", name=op.f("ck_credit_accounts_held")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_credit_accounts_user_id_users")),
        sa.PrimaryKeyConstraint("user_id", "currency", name=op.f("pk_credit_accounts")),
    )
    op.create_table(
        "credit_entries",
        sa.Column("position", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("transaction_id", sa.UUID(), nullable=False),
        sa.Column("user_id", sa.UUID(), nullable=True),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("amount", sa.Numeric(precision=19, scale=4), nullable=False),
        sa.Column("balance_after", sa.Numeric(precision=19, scale=4), nullable=True),
        sa.Column("order_id", sa.UUID(), nullable=True),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("create_time", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.CheckConstraint(
            "CASE WHEN user_id IS NULL THEN account IN ('ISSUED', 'SPENT', 'PURGED') AND balance_after IS NULL"
            " ELSE account IN ('AVAILABLE', 'HELD') AND balance_after IS NOT NULL END",
            name=op.f("ck_credit_entries_account"),
        ),
        sa.CheckConstraint(
            "type IN ('GRANT', 'TRANSFER', 'HOLD', 'VOID', 'POST', 'REVERSAL')", name=op.f("ck_credit_entries_type")
        ),
        sa.CheckConstraint("amount <> 0", name=op.f("ck_credit_entries_amount")),
        sa.CheckConstraint("balance_after >= 0", name=op.f("ck_credit_entries_balance_after")),
        sa.CheckConstraint("length(description) <= 200", name=op.f("ck_credit_entries_description")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_credit_entries_user_id_users")),
        sa.PrimaryKeyConstraint("position", name=op.f("pk_credit_entries")),
        sa.UniqueConstraint("id", name=op.f("uq_credit_entries_id")),
    )
    op.create_index(op.f("ix_credit_entries_transaction_id"), "credit_entries", ["transaction_id"], unique=False)
    op.create_index(op.f("ix_credit_entries_user_id_position"), "credit_entries", ["user_id", "position"], unique=False)
    op.add_column("orders", sa.Column("credit_state", sa.Text(), nullable=True))
    op.add_column("orders", sa.Column("credit_user_id", sa.UUID(), nullable=True))
    op.add_column("orders", sa.Column("credit_expire_time", sa.TIMESTAMP(timezone=True), nullable=True))
    op.execute(ORDER_CREDIT_USER)
    op.execute(ORDER_CREDIT_CHECK)
    for statement in (BALANCED_FUNCTION, BALANCED_TRIGGER, APPEND_ONLY_TRIGGER):
        op.execute(statement)


def downgrade() -> None:
    """Undo the upgrade."""
    op.drop_constraint(op.f("ck_orders_credit"), "orders")
    op.drop_column("orders", "credit_user_id")
    op.drop_column("orders", "credit_expire_time")
    op.drop_column("orders", "credit_state")
    op.drop_table("credit_entries")
    op.drop_table("credit_accounts")
    op.execute("DROP FUNCTION check_credit_balanced()")
