"""Create users, orders, their events, and the responses that are returned when a call is repeated."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import UserDefinedType

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


# Checked when the transaction commits, because an order and its items are written by separate statements.
ORDER_TOTAL_FUNCTION = """
CREATE FUNCTION check_order_total() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    changed uuid[];
BEGIN
    IF TG_TABLE_NAME = 'orders' THEN
        changed := ARRAY[NEW.id];
    ELSE
        changed := ARRAY[OLD.order_id, NEW.order_id];
    END IF;
    IF EXISTS (
        SELECT FROM orders o WHERE o.id = ANY (changed)
        AND o.total_amount IS DISTINCT FROM (SELECT sum(i.subtotal) FROM order_items i WHERE i.order_id = o.id)
    ) THEN
        RAISE EXCEPTION 'total_amount is not the sum of the items'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'order_total', TABLE = 'orders';
    END IF;
    RETURN NULL;
END
$$
"""
ORDER_TOTAL_TRIGGERS = (
    """
CREATE CONSTRAINT TRIGGER order_total AFTER INSERT OR UPDATE ON orders
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_order_total()
""",
    """
CREATE CONSTRAINT TRIGGER order_total AFTER INSERT OR UPDATE OR DELETE ON order_items
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_order_total()
""",
)
APPEND_ONLY_FUNCTION = """
CREATE FUNCTION refuse_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING MESSAGE = TG_TABLE_NAME || ' is append-only', ERRCODE = 'restrict_violation';
END
$$
"""
APPEND_ONLY_TRIGGER = """
CREATE TRIGGER events_append_only BEFORE UPDATE ON events FOR EACH STATEMENT EXECUTE FUNCTION refuse_update()
"""
# 244 random bits, without an extension.
SIGNING_KEY = """
INSERT INTO signing_keys (id, key) VALUES (1, uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()))
"""


class Xid8(UserDefinedType[int]):
    """A 64-bit transaction id of PostgreSQL."""

    def get_col_spec(self, **_options: object) -> str:
        """Return the type's name in DDL."""
        return "xid8"


def upgrade() -> None:
    """Upgrade the schema from the previous revision to this one."""
    op.create_table(
        "events",
        sa.Column("position", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("xid", Xid8(), server_default=sa.text("pg_current_xact_id()"), nullable=False),
        sa.Column("aggregate_type", sa.Text(), nullable=False),
        sa.Column("aggregate_id", sa.UUID(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("create_time", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("changes", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.CheckConstraint("aggregate_type IN ('user', 'order')", name=op.f("ck_events_aggregate_type")),
        sa.CheckConstraint("jsonb_typeof(changes) = 'array'", name=op.f("ck_events_changes")),
        sa.PrimaryKeyConstraint("position", name=op.f("pk_events")),
        sa.UniqueConstraint("id", name=op.f("uq_events_id")),
    )
    op.create_index(op.f("ix_events_aggregate_id_position"), "events", ["aggregate_id", "position"], unique=False)
    op.create_index(op.f("ix_events_xid_position"), "events", ["xid", "position"], unique=False)
    op.create_table(
        "request_ids",
        sa.Column("caller", sa.Text(), nullable=False),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("request_id", sa.UUID(), nullable=False),
        sa.Column("body_digest", sa.LargeBinary(), nullable=False),
        sa.Column("response", sa.LargeBinary(), nullable=True),
        sa.Column("create_time", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("caller", "method", "request_id", name=op.f("pk_request_ids")),
    )
    op.create_index(op.f("ix_request_ids_create_time"), "request_ids", ["create_time"], unique=False)
    op.create_table(
        "signing_keys",
        sa.Column("id", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_signing_keys_one_row")),
        sa.CheckConstraint("length(key) >= 32", name=op.f("ck_signing_keys_key")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_signing_keys")),
    )
    op.create_table(
        "users",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("username", sa.Text(collation="C"), nullable=False),
        sa.Column("full_name", sa.Text(), nullable=False),
        sa.Column("superuser", sa.Boolean(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("undelete_state", sa.Text(), nullable=True),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("create_time", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("update_time", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("delete_time", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("purge_time", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.CheckConstraint(
            "CASE WHEN state = 'DELETED'"
            " THEN undelete_state IN ('ACTIVE', 'INACTIVE') AND num_nulls(undelete_state, delete_time, purge_time) = 0"
            " ELSE num_nonnulls(undelete_state, delete_time, purge_time) = 0 END",
            name=op.f("ck_users_deleted"),
        ),
        sa.CheckConstraint("state IN ('ACTIVE', 'INACTIVE', 'DELETED')", name=op.f("ck_users_state")),
        sa.CheckConstraint("username ~ '^[a-z0-9_.-]{3,50}$'", name=op.f("ck_users_username")),
        sa.CheckConstraint("length(email) BETWEEN 3 AND 254", name=op.f("ck_users_email")),
        sa.CheckConstraint("length(full_name) <= 200", name=op.f("ck_users_full_name")),
        sa.CheckConstraint("update_time >= create_time", name=op.f("ck_users_update_time")),
        sa.CheckConstraint("version >= 1", name=op.f("ck_users_version")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
        sa.UniqueConstraint("username", name=op.f("uq_users_username")),
    )
    op.create_index(op.f("ix_users_create_time_id"), "users", ["create_time", "id"], unique=False)
    op.create_index(op.f("ix_users_state_create_time_id"), "users", ["state", "create_time", "id"], unique=False)
    op.create_index(
        "ix_users_superuser", "users", ["create_time", "id"], unique=False, postgresql_where=sa.text("superuser")
    )
    op.create_index("uq_users_email", "users", [sa.literal_column("lower(email)")], unique=True)
    op.create_table(
        "orders",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("order_number", sa.Text(collation="C"), nullable=False),
        sa.Column("user_id", sa.UUID(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("total_amount", sa.Numeric(precision=19, scale=4), nullable=False),
        sa.Column("external_ref", sa.Text(), nullable=True),
        sa.Column("metadata", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("tracking_number", sa.Text(), nullable=True),
        sa.Column("cancel_reason", sa.Text(), nullable=True),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("create_time", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("update_time", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.CheckConstraint(
            "(status = 'CANCELLED') = (cancel_reason IS NOT NULL)", name=op.f("ck_orders_cancel_reason")
        ),
        sa.CheckConstraint(
            "(status IN ('SHIPPED', 'DELIVERED')) = (tracking_number IS NOT NULL)",
            name=op.f("ck_orders_tracking_number"),
        ),
        sa.CheckConstraint("currency ~ '^[A-Z]{3}$'", name=op.f("ck_orders_currency")),
        sa.CheckConstraint("jsonb_typeof(metadata) = 'object'", name=op.f("ck_orders_metadata")),
        sa.CheckConstraint(
            "status IN ('PENDING', 'CONFIRMED', 'PROCESSING', 'SHIPPED', 'DELIVERED', 'CANCELLED')",
            name=op.f("ck_orders_status"),
        ),
        sa.CheckConstraint("length(external_ref) BETWEEN 1 AND 100", name=op.f("ck_orders_external_ref")),
        sa.CheckConstraint("total_amount >= 0", name=op.f("ck_orders_total_amount")),
        sa.CheckConstraint("update_time >= create_time", name=op.f("ck_orders_update_time")),
        sa.CheckConstraint("version >= 1", name=op.f("ck_orders_version")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_orders_user_id_users")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_orders")),
        sa.UniqueConstraint("order_number", name=op.f("uq_orders_order_number")),
    )
    op.create_index(op.f("ix_orders_create_time_id"), "orders", ["create_time", "id"], unique=False)
    op.create_index(
        "ix_orders_open",
        "orders",
        ["user_id", "create_time", "id"],
        unique=False,
        postgresql_where=sa.text("status IN ('PENDING', 'CONFIRMED', 'PROCESSING')"),
    )
    op.create_index(op.f("ix_orders_status_create_time_id"), "orders", ["status", "create_time", "id"], unique=False)
    op.create_index(op.f("ix_orders_user_id_create_time_id"), "orders", ["user_id", "create_time", "id"], unique=False)
    op.create_index(
        "uq_orders_user_id_external_ref",
        "orders",
        ["user_id", "external_ref"],
        unique=True,
        postgresql_where=sa.text("external_ref IS NOT NULL"),
    )
    op.create_table(
        "user_passwords",
        sa.Column("user_id", sa.UUID(), nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=False),
        sa.Column("update_time", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.CheckConstraint("starts_with(password_hash, '$argon2id$')", name=op.f("ck_user_passwords_password_hash")),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_user_passwords_user_id_users"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_user_passwords")),
    )
    op.create_table(
        "order_items",
        sa.Column("order_id", sa.UUID(), nullable=False),
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("product_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("quantity", sa.Integer(), nullable=False),
        sa.Column("unit_price", sa.Numeric(precision=19, scale=4), nullable=False),
        sa.Column("subtotal", sa.Numeric(precision=19, scale=4), nullable=False),
        sa.CheckConstraint("length(name) BETWEEN 1 AND 200", name=op.f("ck_order_items_name")),
        sa.CheckConstraint("length(product_id) BETWEEN 1 AND 100", name=op.f("ck_order_items_product_id")),
        sa.CheckConstraint("quantity BETWEEN 1 AND 10000", name=op.f("ck_order_items_quantity")),
        sa.CheckConstraint("subtotal = quantity * unit_price", name=op.f("ck_order_items_subtotal")),
        sa.CheckConstraint("unit_price >= 0", name=op.f("ck_order_items_unit_price")),
        sa.ForeignKeyConstraint(
            ["order_id"], ["orders.id"], name=op.f("fk_order_items_order_id_orders"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("order_id", "id", name=op.f("pk_order_items")),
    )
    op.execute(sa.schema.CreateSequence(sa.Sequence("order_number_seq", start=1, increment=32)))
    for statement in (
        ORDER_TOTAL_FUNCTION,
        *ORDER_TOTAL_TRIGGERS,
        APPEND_ONLY_FUNCTION,
        APPEND_ONLY_TRIGGER,
        SIGNING_KEY,
    ):
        op.execute(statement)


def downgrade() -> None:
    """Undo the upgrade."""
    op.drop_table("order_items")
    op.drop_table("user_passwords")
    op.drop_table("orders")
    op.drop_table("users")
    op.drop_table("signing_keys")
    op.drop_table("request_ids")
    op.drop_table("events")
    op.execute("DROP SEQUENCE order_number_seq")
    op.execute("DROP FUNCTION check_order_total()")
    op.execute("DROP FUNCTION refuse_update()")
