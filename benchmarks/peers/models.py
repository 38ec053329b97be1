"""Map the tables as SQLAlchemy's tutorials do, for the peers that use its ORM."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import Column, DateTime, ForeignKey, Identity, Numeric, Table, Text, make_url, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from uuid_utils.compat import uuid7

from benchmarks.peers.serving import POOL_SIZE, database_url


class Base(DeclarativeBase):
    """The base of all models."""

    type_annotation_map: ClassVar[dict[Any, Any]] = {
        str: Text,
        datetime: DateTime(timezone=True),
        Decimal: Numeric(19, 4),
        dict[str, str]: JSONB,
        list[dict[str, str]]: JSONB,
    }


class User(Base):
    """A user."""

    __tablename__ = "users"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    email: Mapped[str]
    username: Mapped[str]
    full_name: Mapped[str]
    superuser: Mapped[bool]
    state: Mapped[str]
    version: Mapped[int]
    create_time: Mapped[datetime]
    update_time: Mapped[datetime]
    delete_time: Mapped[datetime | None]
    purge_time: Mapped[datetime | None]
    profile: Mapped["Profile | None"] = relationship()

    @property
    def etag(self) -> str:
        """The version, in the form that callers receive."""
        return f"v{self.version}"


class Profile(Base):
    """The profile of a user."""

    __tablename__ = "user_profiles"

    user_id: Mapped[UUID] = mapped_column(ForeignKey(User.id), primary_key=True)
    bio: Mapped[str]
    avatar_url: Mapped[str]


class Tag(Base):
    """A tag of orders."""

    __tablename__ = "tags"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    name: Mapped[str]


order_tags = Table(
    "order_tags",
    Base.metadata,
    Column("order_id", ForeignKey("orders.id"), primary_key=True),
    Column("tag_id", ForeignKey(Tag.id), primary_key=True),
)


class OrderItem(Base):
    """An item of an order: a quantity of one product."""

    __tablename__ = "order_items"

    order_id: Mapped[UUID] = mapped_column(ForeignKey("orders.id"), primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    product_id: Mapped[str]
    name: Mapped[str]
    quantity: Mapped[int]
    unit_price: Mapped[Decimal]
    subtotal: Mapped[Decimal]


class Order(Base):
    """An order of a user."""

    __tablename__ = "orders"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    order_number: Mapped[str] = mapped_column(
        default=text("'ORD-' || lpad(nextval('order_number_seq')::text, 8, '0')"),
    )
    user_id: Mapped[UUID] = mapped_column(ForeignKey(User.id))
    status: Mapped[str]
    currency: Mapped[str]
    total_amount: Mapped[Decimal]
    external_ref: Mapped[str | None]
    # The declarative base reserves the name `metadata`.
    metadata_: Mapped[dict[str, str]] = mapped_column("metadata")
    tracking_number: Mapped[str | None]
    cancel_reason: Mapped[str | None]
    credit_state: Mapped[str | None]
    version: Mapped[int]
    create_time: Mapped[datetime]
    update_time: Mapped[datetime]
    items: Mapped[list[OrderItem]] = relationship(order_by=OrderItem.id)
    tags: Mapped[list[Tag]] = relationship(secondary=order_tags, order_by=Tag.name)

    @property
    def etag(self) -> str:
        """The version, in the form that callers receive."""
        return f"v{self.version}"

    @property
    def tag_names(self) -> list[str]:
        """The names of the tags."""
        return [tag.name for tag in self.tags]

    @classmethod
    def place(
        cls, user_id: UUID, currency: str, items: list[OrderItem], external_ref: str | None, metadata: dict[str, str]
    ) -> "Order":
        """Return a new order of these items."""
        now = datetime.now(UTC)
        for item in items:
            item.id, item.subtotal = uuid7(), item.quantity * item.unit_price
        return cls(
            id=uuid7(),
            user_id=user_id,
            status="PENDING",
            currency=currency,
            total_amount=sum(item.subtotal for item in items),
            external_ref=external_ref,
            metadata_=metadata,
            version=1,
            create_time=now,
            update_time=now,
            items=items,
            tags=[],
        )


class Event(Base):
    """An event of an order or a user."""

    __tablename__ = "events"

    position: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    id: Mapped[UUID] = mapped_column(default=uuid7)
    aggregate_type: Mapped[str]
    aggregate_id: Mapped[UUID]
    type: Mapped[str]
    actor: Mapped[str]
    create_time: Mapped[datetime]
    changes: Mapped[list[dict[str, str]]]
    user_id: Mapped[UUID | None]
    status: Mapped[str | None]

    @classmethod
    def of_order(cls, order: Order, kind: str, *changes: dict[str, str]) -> "Event":
        """Return the event of the latest change to an order."""
        return cls(
            aggregate_type="order",
            aggregate_id=order.id,
            type=kind,
            actor="anonymous",
            create_time=order.update_time,
            changes=list(changes),
            user_id=order.user_id,
            status=order.status,
        )


class Answer(Base):
    """The response to a call with a request id."""

    __tablename__ = "request_ids"

    caller: Mapped[str] = mapped_column(primary_key=True)
    method: Mapped[str] = mapped_column(primary_key=True)
    request_id: Mapped[UUID] = mapped_column(primary_key=True)
    body_digest: Mapped[bytes]
    response: Mapped[bytes | None]


def create_sessions() -> async_sessionmaker[AsyncSession]:
    """Return a session factory on a pool, with the settings that tutorials for asyncio recommend."""
    url = make_url(database_url()).set(drivername="postgresql+asyncpg")
    engine = create_async_engine(url, pool_size=POOL_SIZE, max_overflow=0, pool_pre_ping=True)
    return async_sessionmaker(engine, expire_on_commit=False)
