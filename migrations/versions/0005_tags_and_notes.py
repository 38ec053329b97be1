"""Create tags and notes of orders."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Upgrade the schema from the previous revision to this one."""
    op.create_table(
        "tags",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("name", sa.Text(collation="C"), nullable=False),
        sa.CheckConstraint("length(name) BETWEEN 1 AND 50", name=op.f("ck_tags_name")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tags")),
        sa.UniqueConstraint("name", name=op.f("uq_tags_name")),
    )
    op.create_table(
        "order_tags",
        sa.Column("order_id", sa.UUID(), nullable=False),
        sa.Column("tag_id", sa.UUID(), nullable=False),
        sa.ForeignKeyConstraint(
            ["order_id"], ["orders.id"], name=op.f("fk_order_tags_order_id_orders"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["tag_id"], ["tags.id"], name=op.f("fk_order_tags_tag_id_tags")),
        sa.PrimaryKeyConstraint("order_id", "tag_id", name=op.f("pk_order_tags")),
    )
    op.create_index(op.f("ix_order_tags_tag_id_order_id"), "order_tags", ["tag_id", "order_id"], unique=False)
    op.create_table(
        "order_notes",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("order_id", sa.UUID(), nullable=False),
        sa.Column("author_id", sa.UUID(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("create_time", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("update_time", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("publish_time", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column(
            "search",
            postgresql.TSVECTOR(),
            sa.Computed("to_tsvector('simple'::regconfig, body)", persisted=True),
            nullable=True,
        ),
        sa.CheckConstraint("length(body) BETWEEN 1 AND 4000", name=op.f("ck_order_notes_body")),
        sa.CheckConstraint("state IN ('DRAFT', 'PUBLISHED')", name=op.f("ck_order_notes_state")),
        sa.CheckConstraint(
            "(state = 'PUBLISHED') = (publish_time IS NOT NULL)", name=op.f("ck_order_notes_publish_time")
        ),
        sa.CheckConstraint("update_time >= create_time", name=op.f("ck_order_notes_update_time")),
        sa.CheckConstraint("version >= 1", name=op.f("ck_order_notes_version")),
        sa.ForeignKeyConstraint(["author_id"], ["users.id"], name=op.f("fk_order_notes_author_id_users")),
        sa.ForeignKeyConstraint(
            ["order_id"], ["orders.id"], name=op.f("fk_order_notes_order_id_orders"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_order_notes")),
    )
    op.create_index(
        op.f("ix_order_notes_author_id_create_time_id"),
        "order_notes",
        ["author_id", "create_time", "id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_order_notes_order_id_create_time_id"),
        "order_notes",
        ["order_id", "create_time", "id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_order_notes_search"),
        "order_notes",
        ["search"],
        unique=False,
        postgresql_using="gin",
        postgresql_with={"fastupdate": "off"},
    )


def downgrade() -> None:
    """Undo the upgrade."""
    op.drop_table("order_notes")
    op.drop_table("order_tags")
    op.drop_table("tags")
