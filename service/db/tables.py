"""The tables. What must never be is refused here too, whatever program writes: CHECKs, keys and triggers.

The triggers and the rows that come with the schema are in the migrations, which are the only way it is made.
"""

from sqlalchemy import (
    TIMESTAMP,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    PrimaryKeyConstraint,
    Sequence,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, TSVECTOR, UUID

from service.db.types import EnumText, Xid8
from service.domain.notes import NoteState
from service.domain.orders import CreditState, OrderStatus
from service.domain.users import UserState

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# Whole units up to 10^15 and up to four decimals: every amount that `service.domain.money` lets through.
_Amount = Numeric(19, 4)
_Time = TIMESTAMP(timezone=True)


users = Table(
    "users",
    metadata,
    Column("id", UUID(as_uuid=True), primary_key=True),
    Column("email", Text, nullable=False),
    # Byte order, so that pages by username do not depend on the database's locale.
    Column("username", Text(collation="C"), nullable=False),
    Column("full_name", Text, nullable=False),
    Column("superuser", Boolean, nullable=False),
    Column("state", EnumText(UserState), nullable=False),
    Column("undelete_state", EnumText(UserState)),
    Column("version", BigInteger, nullable=False),
    Column("create_time", _Time, nullable=False),
    Column("update_time", _Time, nullable=False),
    Column("delete_time", _Time),
    Column("purge_time", _Time),
    # The words of username, full name and bio. Only triggers write it, and only searches read it.
    Column("search", TSVECTOR),
    # The user with its profile, as the API sends it, so that a reader need not make that. The triggers
    # forget_user_message set it to null when either changes without it; then the columns are read
    # (docs/adr/0019-encoded-messages-in-rows.md).
    Column("message", LargeBinary),
    UniqueConstraint("username"),
    CheckConstraint("length(email) BETWEEN 3 AND 254", name="email"),
    CheckConstraint("username ~ '^[a-z0-9_.-]{3,50}$'", name="username"),
    CheckConstraint("length(full_name) <= 200", name="full_name"),
    CheckConstraint("state IN ('ACTIVE', 'INACTIVE', 'DELETED')", name="state"),
    CheckConstraint(
        "CASE WHEN state = 'DELETED'"
        " THEN undelete_state IN ('ACTIVE', 'INACTIVE') AND num_nulls(undelete_state, delete_time, purge_time) = 0"
        " ELSE num_nonnulls(undelete_state, delete_time, purge_time) = 0 END",
        name="deleted",
    ),
    CheckConstraint("version >= 1", name="version"),
    CheckConstraint("update_time >= create_time", name="update_time"),
    Index("uq_users_email", func.lower(text("email")), unique=True),
    Index(None, "create_time", "id"),
    Index(None, "state", "create_time", "id"),
    Index("ix_users_superuser", "create_time", "id", postgresql_where=text("superuser")),
    Index(None, "search", postgresql_using="gin"),
    Index("ix_users_not_kept", "id", postgresql_where=text("message IS NULL")),
)

# Apart from `users`, so that no query of users can carry a hash by accident.
user_passwords = Table(
    "user_passwords",
    metadata,
    Column("user_id", ForeignKey(users.c.id, ondelete="CASCADE"), primary_key=True),
    Column("password_hash", Text, nullable=False),
    Column("update_time", _Time, nullable=False),
    CheckConstraint("starts_with(password_hash, '$argon2id$')", name="password_hash"),
)

# One to one. Users made before there were profiles have no row.
user_profiles = Table(
    "user_profiles",
    metadata,
    Column("user_id", ForeignKey(users.c.id, ondelete="CASCADE"), primary_key=True),
    Column("bio", Text, nullable=False),
    Column("avatar_url", Text, nullable=False),
    CheckConstraint("length(bio) <= 1000", name="bio"),
    CheckConstraint("length(avatar_url) <= 2000", name="avatar_url"),
)

# One `nextval` gives this many order numbers to one process (see `service.db.writes.orders.OrderNumbers`).
ORDER_NUMBER_BLOCK = 32
order_number_sequence = Sequence("order_number_seq", start=1, increment=ORDER_NUMBER_BLOCK, metadata=metadata)

orders = Table(
    "orders",
    metadata,
    Column("id", UUID(as_uuid=True), primary_key=True),
    Column("order_number", Text(collation="C"), nullable=False),
    Column("user_id", ForeignKey(users.c.id), nullable=False),
    Column("status", EnumText(OrderStatus), nullable=False),
    Column("currency", Text, nullable=False),
    Column("total_amount", _Amount, nullable=False),
    Column("external_ref", Text),
    Column("metadata", JSONB, nullable=False),
    Column("tracking_number", Text),
    Column("cancel_reason", Text),
    Column("credit_state", EnumText(CreditState)),
    Column("credit_user_id", ForeignKey(users.c.id)),
    Column("credit_expire_time", _Time),
    Column("version", BigInteger, nullable=False),
    Column("create_time", _Time, nullable=False),
    Column("update_time", _Time, nullable=False),
    # The order with its items and tags, as the API sends it. The triggers forget_order_message set it to null when any
    # of these changes without it; then the columns and rows are read (docs/adr/0019-encoded-messages-in-rows.md).
    Column("message", LargeBinary),
    # The items alone, likewise, by the release before. Nobody writes or reads it any more; to be dropped.
    Column("items_message", LargeBinary),
    UniqueConstraint("order_number"),
    CheckConstraint(
        "status IN ('PENDING', 'CONFIRMED', 'PROCESSING', 'SHIPPED', 'DELIVERED', 'CANCELLED')", name="status"
    ),
    CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency"),
    # That it is the sum of the items is checked at commit, by the triggers order_total.
    CheckConstraint("total_amount >= 0", name="total_amount"),
    CheckConstraint("length(external_ref) BETWEEN 1 AND 100", name="external_ref"),
    CheckConstraint("jsonb_typeof(metadata) = 'object'", name="metadata"),
    CheckConstraint("(status IN ('SHIPPED', 'DELIVERED')) = (tracking_number IS NOT NULL)", name="tracking_number"),
    CheckConstraint("(status = 'CANCELLED') = (cancel_reason IS NOT NULL)", name="cancel_reason"),
    CheckConstraint(
        "CASE WHEN credit_state IS NULL THEN num_nonnulls(credit_user_id, credit_expire_time) = 0"
        " ELSE credit_user_id IS NOT NULL AND credit_state IN ('HELD', 'POSTED', 'VOIDED', 'REVERSED', 'EXPIRED')"
        " AND (credit_state = 'HELD') = (credit_expire_time IS NOT NULL) END",
        name="credit",
    ),
    CheckConstraint("version >= 1", name="version"),
    CheckConstraint("update_time >= create_time", name="update_time"),
    Index("ix_orders_credit_user_id", "credit_user_id", postgresql_where=text("credit_user_id IS NOT NULL")),
    Index("ix_orders_held", "credit_expire_time", postgresql_where=text("credit_state = 'HELD'")),
    Index(
        "uq_orders_user_id_external_ref",
        "user_id",
        "external_ref",
        unique=True,
        postgresql_where=text("external_ref IS NOT NULL"),
    ),
    Index(None, "create_time", "id"),
    Index(None, "user_id", "create_time", "id"),
    Index(None, "status", "create_time", "id"),
    Index(
        "ix_orders_open",
        "user_id",
        "create_time",
        "id",
        postgresql_where=text("status IN ('PENDING', 'CONFIRMED', 'PROCESSING')"),
    ),
)
# In the words of the partial index ix_orders_open: bound values would not tell the planner that it applies.
OPEN = text("orders.status IN ('PENDING', 'CONFIRMED', 'PROCESSING')")

order_items = Table(
    "order_items",
    metadata,
    Column("order_id", ForeignKey(orders.c.id, ondelete="CASCADE"), nullable=False),
    # Grows with time (UUIDv7), so the primary key also gives the items of an order in their order.
    Column("id", UUID(as_uuid=True), nullable=False),
    Column("product_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("quantity", Integer, nullable=False),
    Column("unit_price", _Amount, nullable=False),
    Column("subtotal", _Amount, nullable=False),
    PrimaryKeyConstraint("order_id", "id"),
    CheckConstraint("length(product_id) BETWEEN 1 AND 100", name="product_id"),
    CheckConstraint("length(name) BETWEEN 1 AND 200", name="name"),
    CheckConstraint("quantity BETWEEN 1 AND 10000", name="quantity"),
    CheckConstraint("unit_price >= 0", name="unit_price"),
    CheckConstraint("subtotal = quantity * unit_price", name="subtotal"),
)

# A tag stays when no order has it any more: another call may be giving it to one.
tags = Table(
    "tags",
    metadata,
    Column("id", UUID(as_uuid=True), primary_key=True),
    # Byte order, which is that of the characters, so that pages by name and prefixes do not depend on the database's
    # locale.
    Column("name", Text(collation="C"), nullable=False),
    UniqueConstraint("name"),
    CheckConstraint("length(name) BETWEEN 1 AND 50", name="name"),
)

# Many to many.
order_tags = Table(
    "order_tags",
    metadata,
    Column("order_id", ForeignKey(orders.c.id, ondelete="CASCADE"), nullable=False),
    Column("tag_id", ForeignKey(tags.c.id), nullable=False),
    # That of the order. Only a trigger writes it, so that the orders of a tag are in an index in the order of lists.
    Column("create_time", _Time),
    PrimaryKeyConstraint("order_id", "tag_id"),
    # With the order, so that the orders of a tag are counted in the index alone.
    Index(None, "tag_id", "order_id"),
    Index(None, "tag_id", "create_time", "order_id"),
)

# How notes are searched: words as they are written. A stemmer knows one language, and drops words that part numbers and
# quoted phrases are made of; notes are in any language, and full of both.
SEARCH_CONFIG = "simple"
order_notes = Table(
    "order_notes",
    metadata,
    Column("id", UUID(as_uuid=True), primary_key=True),
    Column("order_id", ForeignKey(orders.c.id, ondelete="CASCADE"), nullable=False),
    Column("author_id", ForeignKey(users.c.id), nullable=False),
    Column("body", Text, nullable=False),
    Column("state", EnumText(NoteState), nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("create_time", _Time, nullable=False),
    Column("update_time", _Time, nullable=False),
    Column("publish_time", _Time),
    Column("search", TSVECTOR, Computed(f"to_tsvector('{SEARCH_CONFIG}'::regconfig, body)", persisted=True)),
    CheckConstraint("length(body) BETWEEN 1 AND 4000", name="body"),
    CheckConstraint("state IN ('DRAFT', 'PUBLISHED')", name="state"),
    CheckConstraint("(state = 'PUBLISHED') = (publish_time IS NOT NULL)", name="publish_time"),
    CheckConstraint("version >= 1", name="version"),
    CheckConstraint("update_time >= create_time", name="update_time"),
    Index(None, "order_id", "create_time", "id"),
    Index(None, "author_id", "create_time", "id"),
    # Without a list of pending entries, which every search would read through, and some writer would have to file.
    Index(None, "search", postgresql_using="gin", postgresql_with={"fastupdate": "off"}),
)

# What each user has, as the sum of its entries in `credit_entries`; `commerce verify-ledger` recomputes it.
credit_accounts = Table(
    "credit_accounts",
    metadata,
    Column("user_id", ForeignKey(users.c.id), nullable=False),
    Column("currency", Text, nullable=False),
    Column("available", _Amount, nullable=False),
    Column("held", _Amount, nullable=False),
    PrimaryKeyConstraint("user_id", "currency"),
    CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency"),
    CheckConstraint("available >= 0", name="available"),
    CheckConstraint("held >= 0", name="held"),
)

# Append-only (trigger credit_entries_append_only). The entries of a transaction add up to zero (trigger
# credit_balanced).
credit_entries = Table(
    "credit_entries",
    metadata,
    # Grows in commit order for one user, whose account is locked while its entries are written.
    Column("position", BigInteger, Identity(always=True), primary_key=True),
    Column("id", UUID(as_uuid=True), nullable=False),
    Column("transaction_id", UUID(as_uuid=True), nullable=False),
    # Null for the accounts that are no user's.
    Column("user_id", ForeignKey(users.c.id)),
    Column("account", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("amount", _Amount, nullable=False),
    Column("balance_after", _Amount),
    # No foreign key: an entry outlives a purged order.
    Column("order_id", UUID(as_uuid=True)),
    Column("description", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("create_time", _Time, nullable=False),
    UniqueConstraint("id"),
    CheckConstraint("type IN ('GRANT', 'TRANSFER', 'HOLD', 'VOID', 'POST', 'REVERSAL')", name="type"),
    CheckConstraint("amount <> 0", name="amount"),
    CheckConstraint("balance_after >= 0", name="balance_after"),
    CheckConstraint(
        "CASE WHEN user_id IS NULL THEN account IN ('ISSUED', 'SPENT', 'PURGED') AND balance_after IS NULL"
        " ELSE account IN ('AVAILABLE', 'HELD') AND balance_after IS NOT NULL END",
        name="account",
    ),
    CheckConstraint("length(description) <= 200", name="description"),
    Index(None, "user_id", "position"),
    Index(None, "transaction_id"),
)

# Append-only (trigger events_append_only): the timeline of every order and user.
events = Table(
    "events",
    metadata,
    # Grows in commit order for one aggregate, whose row is locked while its events are written.
    Column("position", BigInteger, Identity(always=True), primary_key=True),
    Column("id", UUID(as_uuid=True), nullable=False),
    # The transaction that wrote the event. Readers of the whole log must stop below the oldest one still running:
    # positions alone become visible out of order.
    Column("xid", Xid8, nullable=False, server_default=text("pg_current_xact_id()")),
    Column("aggregate_type", Text, nullable=False),
    Column("aggregate_id", UUID(as_uuid=True), nullable=False),
    Column("type", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("create_time", _Time, nullable=False),
    Column("changes", JSONB, nullable=False),
    # Of an order's event: whose the order was and its status, both after it. Null where the writer did not say.
    Column("user_id", UUID(as_uuid=True)),
    Column("status", Text),
    UniqueConstraint("id"),
    CheckConstraint("aggregate_type IN ('user', 'order')", name="aggregate_type"),
    CheckConstraint("jsonb_typeof(changes) = 'array'", name="changes"),
    Index(None, "aggregate_id", "position"),
    Index(None, "xid", "position"),
)

# Up to where events were swept: the first that is kept comes after it. One row.
swept_events = Table(
    "swept_events",
    metadata,
    Column("id", SmallInteger, primary_key=True, autoincrement=False),
    Column("xid", Xid8, nullable=False),
    Column("position", BigInteger, nullable=False),
    CheckConstraint("id = 1", name="one_row"),
)

# Up to where each relay has published the events.
relay_cursors = Table(
    "relay_cursors",
    metadata,
    Column("name", Text, primary_key=True),
    Column("xid", Xid8, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("update_time", _Time, nullable=False, server_default=func.now()),
)

# Answers to repeat for calls that come again with the same request id (AIP-155).
request_ids = Table(
    "request_ids",
    metadata,
    Column("caller", Text, nullable=False),
    Column("method", Text, nullable=False),
    Column("request_id", UUID(as_uuid=True), nullable=False),
    Column("body_digest", LargeBinary, nullable=False),
    # Null only inside the transaction that does the work.
    Column("response", LargeBinary),
    Column("create_time", _Time, nullable=False, server_default=func.now()),
    PrimaryKeyConstraint("caller", "method", "request_id"),
    Index(None, "create_time"),
)

# The key that signs page tokens and digests request bodies, where the settings name none. One row.
signing_keys = Table(
    "signing_keys",
    metadata,
    Column("id", SmallInteger, primary_key=True, autoincrement=False),
    Column("key", LargeBinary, nullable=False),
    CheckConstraint("id = 1", name="one_row"),
    CheckConstraint("length(key) >= 32", name="key"),
)
