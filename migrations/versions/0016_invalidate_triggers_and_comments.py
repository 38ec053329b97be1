"""Name the triggers of encoded messages for what they do, and explain the schema with comments."""

from collections.abc import Iterator, Sequence

from alembic import op

revision: str = "0016"
down_revision: str | None = "0015"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

# The triggers of each table, and the functions, that are renamed from forget_… to invalidate_….
TRIGGERS = {
    "users": ["user_message"],
    "user_profiles": ["user_message"],
    "orders": ["order_message", "items_message"],
    "order_items": ["order_message", "items_messages_at_update", "items_messages_at_delete"],
    "order_tags": ["order_message"],
    "tags": ["order_messages"],
}
FUNCTIONS = [
    "user_message",
    "user_message_of_profile",
    "order_message",
    "order_message_of_part",
    "order_messages_of_tag",
    "items_message",
    "items_messages",
]
# ALTER … RENAME has no IF EXISTS. A rename that was done by a run that was cut off is left out by the next run.
RENAME_TRIGGER = """
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_trigger WHERE tgrelid = '{table}'::regclass AND tgname = '{old}') THEN
        ALTER TRIGGER {old} ON {table} RENAME TO {new};
    END IF;
END
$$
"""
RENAME_FUNCTION = """
DO $$
BEGIN
    IF to_regprocedure('{old}()') IS NOT NULL THEN
        ALTER FUNCTION {old}() RENAME TO {new};
    END IF;
END
$$
"""
TABLE_COMMENTS = {
    "users": "Users. A deleted one stays until its purge_time, so that it can be undeleted.",
    "user_passwords": (
        "Hashes of passwords. Not columns of users, so that no query of users returns a hash by accident."
    ),
    "user_profiles": (
        "What users say about themselves: at most one row per user. A user without a row has an empty profile."
    ),
    "tags": "Tags of orders. A tag that no order has stays: another transaction may be adding it to an order.",
    "order_tags": "Which orders have which tags.",
    "order_notes": "Notes that users write about orders.",
    "credit_accounts": (
        "Balances of users per currency: sums of their credit_entries. `commerce verify-ledger` recomputes them."
    ),
    "credit_entries": (
        "The double-entry ledger of all credit. Append-only (trigger credit_entries_append_only); the entries of a "
        "transaction_id add up to zero in each currency (constraint trigger credit_balanced)."
    ),
    "events": (
        "What happened to users and orders, written in the transaction of the change. Append-only (trigger "
        "events_append_only). The timeline of each aggregate, and the log that watches and relays read by (xid, "
        "position)."
    ),
    "swept_events": "One row: the position of the last event that `commerce gc` has deleted.",
    "relay_cursors": "The position of the last event that each relay has published.",
    "request_ids": "Responses to calls with a request_id, to be returned when a call is repeated (AIP-155).",
    "signing_keys": (
        "One row: the secret for page tokens, cursors and body digests, unless COMMERCE_SIGNING_KEY is set."
    ),
}
COLUMN_COMMENTS = {
    "users.email": "Unique regardless of case (index uq_users_email).",
    "users.username": "Sorted by bytes, so that pages by username do not depend on the locale of the database.",
    "users.undelete_state": "The state that UndeleteUser restores; null unless state is DELETED.",
    "users.version": "Increases with every change, from 1; the etag of the API is made of it.",
    "users.purge_time": "When a deleted user may be erased with all its data; null unless state is DELETED.",
    "users.search": "Words of username, full_name and user_profiles.bio, for SearchUsers. Only triggers write it.",
    "users.message": (
        "The user with its profile as an encoded protobuf message of the API, which readers send unchanged; where it "
        "is null, they use the columns. Triggers named invalidate_user_message set it to null when a writer changes "
        "the user or the profile without writing the message."
    ),
    "orders.order_number": (
        "ORD- and a number. Each process takes numbers from order_number_seq in blocks, so they have gaps and are not "
        "in the order of time."
    ),
    "orders.total_amount": "Sum of order_items.subtotal; the constraint triggers order_total check that at commit.",
    "orders.external_ref": "The caller's own reference, unique per user.",
    "orders.metadata": "Keys and values of the caller: a JSON object of strings.",
    "orders.credit_state": "What became of the credit that pays for the order; null if it is not paid with credit.",
    "orders.credit_user_id": (
        "The user whose credit pays for the order, also after the order was transferred to another user."
    ),
    "orders.credit_expire_time": "When the credit is given back if the order is still PENDING.",
    "orders.version": "Increases with every change, from 1; the etag of the API is made of it.",
    "orders.message": (
        "The order with its items and tags as an encoded protobuf message of the API, which readers send unchanged; "
        "where it is null, they use the columns and rows. Triggers named invalidate_order_message(s) set it to null "
        "when a writer changes the order, its items or its tags without writing the message."
    ),
    "orders.items_message": "The encoded items alone. No longer written or read; to be dropped.",
    "order_items.id": (
        "UUIDv7, which increases with time, so that the primary key returns the items of an order in their order."
    ),
    "tags.name": (
        "Sorted by bytes, which is the order of the code points, so that pages by name and prefixes do not depend on "
        "the locale of the database."
    ),
    "order_tags.create_time": (
        "The order's create_time, so that an index has the orders of a tag in the order of lists. Only the trigger "
        "order_tag_create_time writes it."
    ),
    "order_notes.version": "Increases with every change, from 1; the etag of the API is made of it.",
    "order_notes.search": (
        "Words of the body as they are written, for SearchOrderNotes. Not stemmed: notes are in any language."
    ),
    "credit_accounts.available": "What the user can spend.",
    "credit_accounts.held": "What is set aside for orders that are not confirmed.",
    "credit_entries.position": (
        "Increases in commit order for each user, whose account is locked while its entries are written."
    ),
    "credit_entries.transaction_id": (
        "The same for all entries of one movement of credit, whose amounts add up to zero."
    ),
    "credit_entries.user_id": "Null for the accounts of the service: ISSUED, SPENT and PURGED.",
    "credit_entries.type": "Why credit moved.",
    "credit_entries.balance_after": (
        "Balance of the account after the entry; null for the accounts of the service, which have none."
    ),
    "credit_entries.order_id": "Not a foreign key, because an entry outlives a purged order.",
    "events.position": (
        "Increases in commit order for each aggregate, whose row is locked while its events are written."
    ),
    "events.xid": (
        "The transaction that wrote the event. Readers of the whole log stop below the oldest running transaction, "
        "because positions alone become visible out of order."
    ),
    "events.aggregate_type": "What the event is about: user or order.",
    "events.aggregate_id": "Id of that user or order.",
    "events.type": "What happened, such as CREATED or SHIPPED.",
    "events.actor": "Who caused the event: the caller, or gc for maintenance.",
    "events.changes": "The changed fields: a JSON array of {field, old_value, new_value}.",
    "events.user_id": (
        "For an event of an order, the order's user after the event; null if the writer did not record it."
    ),
    "events.status": (
        "For an event of an order, the order's status after the event; null if the writer did not record it."
    ),
    "request_ids.body_digest": "HMAC-SHA256 of the request, to notice another request with the same request_id.",
    "request_ids.response": "The encoded response; null only within the transaction that handles the call.",
}


def upgrade() -> None:
    """Upgrade the schema from the previous revision to this one."""
    # A transaction for each statement, so that the lock on a table is held for an instant, and never on two tables.
    with op.get_context().autocommit_block():
        for statement in renames("forget", "invalidate"):
            op.execute(statement)
        for table, comment in TABLE_COMMENTS.items():
            op.execute(f"COMMENT ON TABLE {table} IS {literal(comment)}")
        for column, comment in COLUMN_COMMENTS.items():
            op.execute(f"COMMENT ON COLUMN {column} IS {literal(comment)}")


def downgrade() -> None:
    """Undo the upgrade."""
    with op.get_context().autocommit_block():
        for column in COLUMN_COMMENTS:
            op.execute(f"COMMENT ON COLUMN {column} IS NULL")
        for table in TABLE_COMMENTS:
            op.execute(f"COMMENT ON TABLE {table} IS NULL")
        for statement in renames("invalidate", "forget"):
            op.execute(statement)


def renames(old: str, new: str) -> Iterator[str]:
    """Return the statements that change the prefix of all triggers and functions."""
    for table, names in TRIGGERS.items():
        for name in names:
            yield RENAME_TRIGGER.format(table=table, old=f"{old}_{name}", new=f"{new}_{name}")
    for name in FUNCTIONS:
        yield RENAME_FUNCTION.format(old=f"{old}_{name}", new=f"{new}_{name}")


def literal(comment: str) -> str:
    """Return a comment as a string of SQL."""
    doubled = comment.replace("'", "''")
    return f"'{doubled}'"
