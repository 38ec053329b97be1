"""The tables. Constraints and triggers also refuse invalid data from other programs.

The migrations create the schema; only the migrations contain the triggers and the initial rows. A `comment` is part of
the schema, for people who look at it with psql; changing one takes a migration.
"""

from sqlalchemy import (
    TIMESTAMP,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
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
    collate,
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

# Whole units up to 10^15 with four decimals: every amount that `service.domain.money` accepts.
_Amount = Numeric(19, 4)
_Time = TIMESTAMP(timezone=True)
_VERSION = "Increases with every change, from 1; the etag of the API is made of it."
_WORDS = (
    "Written by the service, which finds the same words in every locale. For other writers, triggers write almost the "
    "same; then a text that is not ASCII has the word ~, by which `commerce gc` finds the row."
)


users = Table(
    "users",
    metadata,
    Column("id", UUID(as_uuid=True), primary_key=True),
    Column(
        "email", Text, nullable=False, comment="Unique regardless of the case of A to Z (index uq_users_email_folded)."
    ),
    Column(
        "username",
        Text(collation="C"),
        nullable=False,
        comment="Sorted by bytes, so that pages by username do not depend on the locale of the database.",
    ),
    Column("full_name", Text, nullable=False),
    Column("superuser", Boolean, nullable=False),
    Column("state", EnumText(UserState), nullable=False),
    Column(
        "undelete_state",
        EnumText(UserState),
        comment="The state that UndeleteUser restores; null unless state is DELETED.",
    ),
    Column("version", BigInteger, nullable=False, comment=_VERSION),
    Column("create_time", _Time, nullable=False),
    Column("update_time", _Time, nullable=False),
    Column("delete_time", _Time),
    Column(
        "purge_time",
        _Time,
        comment="When a deleted user may be erased with all its data; null unless state is DELETED.",
    ),
    Column(
        "search",
        TSVECTOR,
        comment=f"Words of username, full_name and user_profiles.bio, for SearchUsers. {_WORDS}",
    ),
    # docs/adr/0019-encoded-messages-in-rows.md
    Column(
        "message",
        LargeBinary,
        comment="The user with its profile as an encoded protobuf message of the API, which readers send unchanged; "
        "where it is null, they use the columns. Triggers named invalidate_user_message set it to null when a writer "
        "changes the user or the profile without writing the message.",
    ),
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
    Index("uq_users_email_folded", func.lower(collate(text("email"), "C")), unique=True),
    # Depends on the locale of the database. No longer read; to be dropped.
    Index("uq_users_email", func.lower(text("email")), unique=True),
    Index(None, "create_time", "id"),
    Index(None, "state", "create_time", "id"),
    Index("ix_users_superuser", "create_time", "id", postgresql_where=text("superuser")),
    Index(None, "search", postgresql_using="gin"),
    # Finds the users whose message has to be backfilled.
    Index("ix_users_not_kept", "id", postgresql_where=text("message IS NULL")),
    comment="Users. A deleted one stays until its purge_time, so that it can be undeleted.",
)

user_passwords = Table(
    "user_passwords",
    metadata,
    Column("user_id", ForeignKey(users.c.id, ondelete="CASCADE"), primary_key=True),
    Column("password_hash", Text, nullable=False),
    Column("update_time", _Time, nullable=False),
    CheckConstraint("starts_with(password_hash, '$argon2id$')", name="password_hash"),
    comment="Hashes of passwords. Not columns of users, so that no query of users returns a hash by accident.",
)

# Logins are counted under a number below this, so that the table cannot grow without a limit. Two given logins share a
# number with a probability of one in four million; then the attempts of one also delay the other.
SIGN_IN_SLOTS = 2**22
sign_in_attempts = Table(
    "sign_in_attempts",
    metadata,
    Column(
        "slot",
        Integer,
        primary_key=True,
        autoincrement=False,
        comment="Digest, with a secret key, of the login and of who tries to sign in. At most 2^22, so this table does "
        "not grow with the logins that are tried.",
    ),
    Column("attempts", Integer, nullable=False, comment="Attempts in a row without success."),
    Column("retry_time", _Time, nullable=False, comment="Before this time, attempts are refused."),
    Column("expire_time", _Time, nullable=False, comment="After this time, these attempts no longer count."),
    CheckConstraint(f"slot BETWEEN 0 AND {SIGN_IN_SLOTS - 1}", name="slot"),
    CheckConstraint("attempts >= 0", name="attempts"),
    comment="Attempts to sign in without success, which VerifyPassword limits. A success deletes the row; "
    "`commerce gc` deletes rows after their expire_time.",
)

maintenance_runs = Table(
    "maintenance_runs",
    metadata,
    Column("part", Text, primary_key=True),
    Column("successes", BigInteger, nullable=False, comment="Runs that succeeded."),
    Column("failures", BigInteger, nullable=False, comment="Runs in which something failed."),
    Column("handled", BigInteger, nullable=False, comment="What all runs have deleted or updated."),
    Column("success_time", _Time, nullable=True, comment="When it last succeeded."),
    Column("failure_time", _Time, nullable=True, comment="When it last failed."),
    comment="What the parts of `commerce gc` and the check of the ledger have done; servers show it in their metrics.",
)

user_profiles = Table(
    "user_profiles",
    metadata,
    Column("user_id", ForeignKey(users.c.id, ondelete="CASCADE"), primary_key=True),
    Column("bio", Text, nullable=False),
    Column("avatar_url", Text, nullable=False),
    CheckConstraint("length(bio) <= 1000", name="bio"),
    CheckConstraint("length(avatar_url) <= 2000", name="avatar_url"),
    comment="What users say about themselves: at most one row per user. A user without a row has an empty profile.",
)

# One `nextval` gives this many order numbers to one process (`service.db.writes.order_numbers.OrderNumbers`).
ORDER_NUMBER_BLOCK = 32
order_number_sequence = Sequence("order_number_seq", start=1, increment=ORDER_NUMBER_BLOCK, metadata=metadata)

orders = Table(
    "orders",
    metadata,
    Column("id", UUID(as_uuid=True), primary_key=True),
    Column(
        "order_number",
        Text(collation="C"),
        nullable=False,
        comment="ORD- and a number. Each process takes numbers from order_number_seq in blocks, so they have gaps and "
        "are not in the order of time.",
    ),
    Column("user_id", ForeignKey(users.c.id), nullable=False),
    Column("status", EnumText(OrderStatus), nullable=False),
    Column("currency", Text, nullable=False),
    Column(
        "total_amount",
        _Amount,
        nullable=False,
        comment="Sum of order_items.subtotal; the constraint triggers order_total check that at commit.",
    ),
    Column("external_ref", Text, comment="The caller's own reference, unique per user."),
    Column("metadata", JSONB, nullable=False, comment="Keys and values of the caller: a JSON object of strings."),
    Column("tracking_number", Text),
    Column("cancel_reason", Text),
    Column(
        "credit_state",
        EnumText(CreditState),
        comment="What became of the credit that pays for the order; null if it is not paid with credit.",
    ),
    Column(
        "credit_user_id",
        ForeignKey(users.c.id),
        comment="The user whose credit pays for the order, also after the order was transferred to another user.",
    ),
    Column("credit_expire_time", _Time, comment="When the credit is given back if the order is still PENDING."),
    Column("version", BigInteger, nullable=False, comment=_VERSION),
    Column("create_time", _Time, nullable=False),
    Column("update_time", _Time, nullable=False),
    # docs/adr/0019-encoded-messages-in-rows.md
    Column(
        "message",
        LargeBinary,
        comment="The order with its items and tags as an encoded protobuf message of the API, which readers send "
        "unchanged; where it is null, they use the columns and rows. Triggers named invalidate_order_message(s) set it "
        "to null when a writer changes the order, its items or its tags without writing the message.",
    ),
    Column(
        "items_message",
        LargeBinary,
        comment="The encoded items alone. No longer written or read; to be dropped.",
    ),
    UniqueConstraint("order_number"),
    CheckConstraint(
        "status IN ('PENDING', 'CONFIRMED', 'PROCESSING', 'SHIPPED', 'DELIVERED', 'CANCELLED')", name="status"
    ),
    CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency"),
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
        postgresql_where=text("external_ref IS NOT NULL AND status <> 'CANCELLED'"),
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
# The condition of the partial index ix_orders_open, as text: with bound values, the planner would not know that the
# index applies.
OPEN = text("orders.status IN ('PENDING', 'CONFIRMED', 'PROCESSING')")

order_items = Table(
    "order_items",
    metadata,
    Column("order_id", ForeignKey(orders.c.id, ondelete="CASCADE"), nullable=False),
    Column(
        "id",
        UUID(as_uuid=True),
        nullable=False,
        comment="UUIDv7, which increases with time, so that the primary key returns the items of an order in their "
        "order.",
    ),
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

tags = Table(
    "tags",
    metadata,
    Column("id", UUID(as_uuid=True), primary_key=True),
    Column(
        "name",
        Text(collation="C"),
        nullable=False,
        comment="Sorted by bytes, which is the order of the code points, so that pages by name and prefixes do not "
        "depend on the locale of the database.",
    ),
    UniqueConstraint("name"),
    CheckConstraint("length(name) BETWEEN 1 AND 50", name="name"),
    comment="Tags of orders. A tag that no order has stays: another transaction may be adding it to an order.",
)

order_tags = Table(
    "order_tags",
    metadata,
    Column("order_id", ForeignKey(orders.c.id, ondelete="CASCADE"), nullable=False),
    Column("tag_id", ForeignKey(tags.c.id), nullable=False),
    Column(
        "create_time",
        _Time,
        comment="The order's create_time, so that an index has the orders of a tag in the order of lists. Only the "
        "trigger order_tag_create_time writes it.",
    ),
    PrimaryKeyConstraint("order_id", "tag_id"),
    # Includes the order, so that the orders of a tag can be counted with an index-only scan.
    Index(None, "tag_id", "order_id"),
    Index(None, "tag_id", "create_time", "order_id"),
    comment="Which orders have which tags.",
)

# Notes are searched without a stemmer. A stemmer knows only one language, and drops words that part numbers and quoted
# phrases consist of; notes are in any language, and contain many part numbers and quotes.
order_notes = Table(
    "order_notes",
    metadata,
    Column("id", UUID(as_uuid=True), primary_key=True),
    Column("order_id", ForeignKey(orders.c.id, ondelete="CASCADE"), nullable=False),
    Column("author_id", ForeignKey(users.c.id), nullable=False),
    Column("body", Text, nullable=False),
    Column("state", EnumText(NoteState), nullable=False),
    Column("version", BigInteger, nullable=False, comment=_VERSION),
    Column("create_time", _Time, nullable=False),
    Column("update_time", _Time, nullable=False),
    Column("publish_time", _Time),
    Column(
        "search",
        TSVECTOR,
        comment=f"Words of the body, for SearchOrderNotes. Not stemmed: notes are in any language. {_WORDS}",
    ),
    CheckConstraint("length(body) BETWEEN 1 AND 4000", name="body"),
    CheckConstraint("state IN ('DRAFT', 'PUBLISHED')", name="state"),
    CheckConstraint("(state = 'PUBLISHED') = (publish_time IS NOT NULL)", name="publish_time"),
    CheckConstraint("version >= 1", name="version"),
    CheckConstraint("update_time >= create_time", name="update_time"),
    Index(None, "order_id", "create_time", "id"),
    Index(None, "author_id", "create_time", "id"),
    # Without GIN's list of pending entries, because every search would scan the list and some writes would merge it.
    Index(None, "search", postgresql_using="gin", postgresql_with={"fastupdate": "off"}),
    comment="Notes that users write about orders.",
)

credit_accounts = Table(
    "credit_accounts",
    metadata,
    Column("user_id", ForeignKey(users.c.id), nullable=False),
    Column("currency", Text, nullable=False),
    Column("available", _Amount, nullable=False, comment="What the user can spend."),
    Column("held", _Amount, nullable=False, comment="What is set aside for orders that are not confirmed."),
    PrimaryKeyConstraint("user_id", "currency"),
    CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency"),
    CheckConstraint("available >= 0", name="available"),
    CheckConstraint("held >= 0", name="held"),
    comment="Balances of users per currency: sums of their credit_entries. `commerce verify-ledger` recomputes them.",
)

credit_entries = Table(
    "credit_entries",
    metadata,
    Column(
        "position",
        BigInteger,
        Identity(always=True),
        primary_key=True,
        comment="Increases in commit order for each user, whose account is locked while its entries are written.",
    ),
    Column("id", UUID(as_uuid=True), nullable=False),
    Column(
        "transaction_id",
        UUID(as_uuid=True),
        nullable=False,
        comment="The same for all entries of one movement of credit, whose amounts add up to zero.",
    ),
    Column(
        "user_id", ForeignKey(users.c.id), comment="Null for the accounts of the service: ISSUED, SPENT and PURGED."
    ),
    Column("account", Text, nullable=False),
    Column("type", Text, nullable=False, comment="Why credit moved."),
    Column("currency", Text, nullable=False),
    Column("amount", _Amount, nullable=False),
    Column(
        "balance_after",
        _Amount,
        comment="Balance of the account after the entry; null for the accounts of the service, which have none.",
    ),
    Column("order_id", UUID(as_uuid=True), comment="Not a foreign key, because an entry outlives a purged order."),
    Column("description", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("create_time", _Time, nullable=False),
    Column(
        "on_behalf_of", UUID(as_uuid=True), comment="The user for whom the actor acted; null if it acted for itself."
    ),
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
    comment="The double-entry ledger of all credit. Append-only (trigger credit_entries_append_only); the entries of a "
    "transaction_id add up to zero in each currency (constraint trigger credit_balanced).",
)

events = Table(
    "events",
    metadata,
    Column(
        "position",
        BigInteger,
        Identity(always=True),
        primary_key=True,
        comment="Increases in commit order for each aggregate, whose row is locked while its events are written.",
    ),
    Column("id", UUID(as_uuid=True), nullable=False),
    Column(
        "xid",
        Xid8,
        nullable=False,
        server_default=text("event_xid(pg_current_xact_id())"),
        comment="The transaction that wrote the event, or the xid of the previous event of its aggregate if that is "
        "greater (trigger follow_previous_event). Readers of the whole log stop below the oldest running transaction, "
        "because positions alone become visible out of order.",
    ),
    Column("aggregate_type", Text, nullable=False, comment="What the event is about: user or order."),
    Column("aggregate_id", UUID(as_uuid=True), nullable=False, comment="Id of that user or order."),
    Column("type", Text, nullable=False, comment="What happened, such as CREATED or SHIPPED."),
    Column("actor", Text, nullable=False, comment="Who caused the event: the caller, or gc for maintenance."),
    Column("create_time", _Time, nullable=False),
    Column(
        "changes", JSONB, nullable=False, comment="The changed fields: a JSON array of {field, old_value, new_value}."
    ),
    Column(
        "user_id",
        UUID(as_uuid=True),
        comment="For an event of an order, the order's user after the event; null if the writer did not record it.",
    ),
    Column(
        "status",
        Text,
        comment="For an event of an order, the order's status after the event; null if the writer did not record it.",
    ),
    Column(
        "on_behalf_of", UUID(as_uuid=True), comment="The user for whom the actor acted; null if it acted for itself."
    ),
    UniqueConstraint("id"),
    CheckConstraint("aggregate_type IN ('user', 'order')", name="aggregate_type"),
    CheckConstraint("jsonb_typeof(changes) = 'array'", name="changes"),
    Index(None, "aggregate_id", "position"),
    Index(None, "xid", "position"),
    comment="What happened to users and orders, written in the transaction of the change. Append-only (trigger "
    "events_append_only). The timeline of each aggregate, and the log that watches and relays read by (xid, position).",
)

swept_events = Table(
    "swept_events",
    metadata,
    Column("id", SmallInteger, primary_key=True, autoincrement=False),
    Column("xid", Xid8, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column(
        "epoch",
        BigInteger,
        nullable=False,
        server_default=text("0"),
        comment="Changes with every `commerce restore-events`, which makes the cursors of watches from before invalid.",
    ),
    CheckConstraint("id = 1", name="one_row"),
    comment="One row: the position of the last event that `commerce gc` has deleted.",
)

relay_cursors = Table(
    "relay_cursors",
    metadata,
    Column("name", Text, primary_key=True),
    Column("xid", Xid8, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("update_time", _Time, nullable=False, server_default=func.now()),
    comment="The position of the last event that each relay has published.",
)

request_ids = Table(
    "request_ids",
    metadata,
    Column("caller", Text, nullable=False),
    Column("method", Text, nullable=False),
    Column("request_id", UUID(as_uuid=True), nullable=False),
    Column(
        "body_digest",
        LargeBinary,
        nullable=False,
        comment="HMAC-SHA256 of the request, to notice another request with the same request_id.",
    ),
    Column(
        "response",
        LargeBinary,
        comment="The encoded response; null only within the transaction that handles the call.",
    ),
    Column("create_time", _Time, nullable=False, server_default=func.now()),
    Column(
        "resource_id",
        UUID(as_uuid=True),
        comment="Id of the user or order that the response is about; a purge deletes the response with it.",
    ),
    Column(
        "other_resource_id",
        UUID(as_uuid=True),
        comment="Id of a second user that the response is about; null if there is only one.",
    ),
    PrimaryKeyConstraint("caller", "method", "request_id"),
    Index(None, "create_time"),
    Index(None, "resource_id", postgresql_where=text("resource_id IS NOT NULL")),
    Index(None, "other_resource_id", postgresql_where=text("other_resource_id IS NOT NULL")),
    comment="Responses to calls with a request_id, to be returned when a call is repeated (AIP-155).",
)

signing_keys = Table(
    "signing_keys",
    metadata,
    Column("id", SmallInteger, primary_key=True, autoincrement=False),
    Column("key", LargeBinary, nullable=False),
    CheckConstraint("id = 1", name="one_row"),
    CheckConstraint("length(key) >= 32", name="key"),
    comment="One row: the secret for page tokens, cursors and body digests, unless COMMERCE_SIGNING_KEY is set.",
)
