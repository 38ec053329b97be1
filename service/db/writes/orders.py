"""The repository of orders.

It uses statements and not SQLAlchemy's ORM: building an order of three items from mapped objects takes longer than the
rest of CreateOrder (ADR 14).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Select, Text, bindparam, cast, delete, func, insert, select, union, update
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.dialects.postgresql import insert as pg_insert
from sqlalchemy.ext.asyncio import AsyncSession

from service.db.arrays import arrays, insert_arrays, is_one_of
from service.db.errors import translated_errors
from service.db.tables import order_items, order_notes, order_tags, orders, users
from service.db.tables import tags as tags_table
from service.db.writes.order_numbers import OrderNumbers
from service.db.writes.recorded_events import RecordedEvents
from service.db.writes.transaction import LazyTransaction
from service.domain.errors import OrderAlreadyExists, OrderNotFound
from service.domain.ids import uuid7
from service.domain.orders import CreditState, Order, OrderItem, OrderStatus
from service.domain.tags import Tag

_COLUMNS = [column.name for column in orders.c if column.name not in {"message", "items_message"}]
# The most references that the error of a transfer names.
_MAX_REFERENCES = 20
_ITEM = ("id", "product_id", "name", "quantity", "unit_price", "subtotal")
_INSERT_ITEMS = insert_arrays(order_items, ("order_id", *_ITEM))


def _select_orders() -> Select[Any]:
    """Return the statement that reads orders: their columns, and `items` and `tags`, each a JSON array of arrays."""
    exact = [cast(order_items.c[name], Text) for name in _ITEM]
    items = select(func.json_agg(aggregate_order_by(func.json_build_array(*exact), order_items.c.id)))
    items = items.where(order_items.c.order_id == orders.c.id)
    tags = select(func.json_agg(func.json_build_array(tags_table.c.id, tags_table.c.name)))
    tags = tags.select_from(order_tags.join(tags_table)).where(order_tags.c.order_id == orders.c.id)
    return select(
        *(orders.c[name] for name in _COLUMNS),
        cast(items.scalar_subquery(), Text).label("items"),
        cast(tags.scalar_subquery(), Text).label("tags"),
    )


def _select_shared_references() -> Select[Any]:
    """Return the statement that reads the first references that orders of both users have, and their number."""
    mine, other = orders.alias("mine").c, orders.alias("other").c
    both = (other.user_id == bindparam("taker")) & (other.external_ref == mine.external_ref)
    return (
        select(mine.external_ref, func.count().over().label("count"))
        .where(mine.user_id == bindparam("giver"), mine.external_ref.is_not(None))
        .where(mine.status != OrderStatus.CANCELLED, other.status != OrderStatus.CANCELLED, both)
        .order_by(mine.external_ref)
        .limit(_MAX_REFERENCES)
    )


_SHARED_REFERENCES = _select_shared_references()
_ORDERS_BY_IDS = _select_orders().where(is_one_of(orders.c.id, "ids"))


class Orders:
    """Implements `service.application.ports.unit_of_work.OrderRepository`.

    Args:
        transaction: the transaction to work in.
        events: collects the events of orders that are written.
        numbers: gives order numbers.
        encode: returns the encoded message of an order, which is written with its row.
    """

    def __init__(
        self,
        transaction: LazyTransaction,
        events: RecordedEvents,
        numbers: OrderNumbers,
        encode: Callable[[Order], bytes | None],
    ) -> None:
        self._transaction = transaction
        self._events = events
        self._numbers = numbers
        self._encode = encode
        # Each order that was read or added, with a copy of what the database has.
        self._loaded: list[tuple[Order, Order]] = []

    async def next_number(self) -> str:
        """Return an unused order number."""
        return await self._numbers.next()

    async def add(self, order: Order) -> None:
        """Insert a new order; raises OrderAlreadyExists."""
        session = await self._transaction.session()
        with translated_errors():
            columns = {name: getattr(order, name) for name in _COLUMNS}
            await session.execute(insert(orders), columns | {"message": self._encode(order)})
            await self._insert_items(session, order)
        self._events.collect(order)
        self._remember(order)

    async def lock_for_purge(self, user_id: UUID) -> tuple[Sequence[Order], Sequence[Order]]:
        """Lock the orders that a purge changes or deletes; returns those held by others, and those paid for others."""
        session = await self._transaction.session()
        concerned = (
            select(orders.c.id).where(orders.c.user_id == user_id),
            select(orders.c.id).where(orders.c.credit_user_id == user_id),
            select(order_notes.c.order_id).where(order_notes.c.author_id == user_id),
        )
        locking = select(orders.c.id).where(orders.c.id.in_(union(*concerned))).order_by(orders.c.id).with_for_update()
        await session.execute(locking)
        held = orders.c.credit_state == CreditState.HELD
        held_by_others = select(orders.c.id).where(
            orders.c.user_id == user_id, orders.c.credit_user_id != user_id, held
        )
        paid_for_others = select(orders.c.id).where(orders.c.user_id != user_id, orders.c.credit_user_id == user_id)
        ids = (await session.scalars(union(held_by_others, paid_for_others))).all()
        found = await self._read(session, ids) if ids else []
        return (
            [order for order in found if order.user_id == user_id],
            [order for order in found if order.user_id != user_id],
        )

    async def transfer(
        self, from_user_id: UUID, to_user_id: UUID, now: datetime
    ) -> Sequence[tuple[UUID, OrderStatus, datetime]]:
        """Transfer all orders of a locked user to another, and return them; raises OrderAlreadyExists."""
        session = await self._transaction.session()
        locking = select(orders.c.id).where(orders.c.user_id == from_user_id).order_by(orders.c.id)
        await session.execute(locking.with_for_update(key_share=True))
        if shared := (await session.execute(_SHARED_REFERENCES, {"giver": from_user_id, "taker": to_user_id})).all():
            raise OrderAlreadyExists.of_both_users([row.external_ref for row in shared], shared[0].count)
        statement = update(orders).where(orders.c.user_id == from_user_id)
        statement = statement.returning(orders.c.id, orders.c.status, orders.c.update_time)
        changed = {
            "user_id": to_user_id,
            "version": orders.c.version + 1,
            "update_time": func.greatest(orders.c.update_time, now),
        }
        return [(row.id, row.status, row.update_time) for row in await session.execute(statement.values(changed))]

    async def get_for_transition(self, order_id: UUID) -> Order:
        """Return the order, locked against other changes; raises OrderNotFound."""
        return await self.get_for_update(order_id)

    async def get_for_update(self, order_id: UUID) -> Order:
        """Return the order with its items and tags, locked against other changes; raises OrderNotFound."""
        session = await self._transaction.session()
        # The user whose credit pays, before the order. It stays the same until the order is locked, or is purged.
        payer = select(users.c.id).join(orders, orders.c.credit_user_id == users.c.id).where(orders.c.id == order_id)
        await session.execute(payer.with_for_update(read=True, key_share=True, of=users))
        await self.lock(order_id)
        # A second statement, sent once the lock is held: it sees what the transaction that held the lock has written.
        (order,) = await self._read(session, [order_id])
        return order

    async def lock(self, order_id: UUID) -> None:
        """Lock the order against other changes, and its timeline with it; raises OrderNotFound."""
        session = await self._transaction.session()
        statement = select(orders.c.id).where(orders.c.id == order_id).with_for_update(key_share=True)
        if await session.scalar(statement) is None:
            raise OrderNotFound(str(order_id))

    async def tags(self, names: Sequence[str]) -> Sequence[Tag]:
        """Return the tags with these normalised names; creates those that do not exist."""
        session = await self._transaction.session()
        statement = select(tags_table.c.id, tags_table.c.name).where(tags_table.c.name.in_(names))
        # FOR KEY SHARE, as a foreign key takes it: encoded messages contain the names of tags.
        statement = statement.with_for_update(read=True, key_share=True)
        found = (await session.execute(statement)).all()
        if missing := sorted(set(names) - {row.name for row in found}):
            # If another transaction inserts the same tags, this waits for it. All insert in the order of names, so no
            # two wait for each other.
            rows = [{"id": uuid7(), "name": name} for name in missing]
            await session.execute(pg_insert(tags_table).values(rows).on_conflict_do_nothing())
            found = (await session.execute(statement)).all()
        return [Tag(id=row.id, name=row.name) for row in found]

    async def flush(self) -> None:
        """Write the orders that have changed since they were read."""
        session = await self._transaction.session()
        for index, (order, before) in enumerate(self._loaded):
            self._events.collect(order)
            await self._update(session, order, before)
            self._loaded[index] = (order, _copy(order))

    async def _read(self, session: AsyncSession, order_ids: Sequence[UUID]) -> list[Order]:
        """Return orders that are locked."""
        rows = await session.execute(_ORDERS_BY_IDS, {"ids": order_ids})
        found = sorted((_order(row) for row in rows), key=lambda order: order.id)
        for order in found:
            self._remember(order)
        return found

    def _remember(self, order: Order) -> None:
        self._loaded.append((order, _copy(order)))

    async def _update(self, session: AsyncSession, order: Order, before: Order) -> None:
        changed = {name: getattr(order, name) for name in _COLUMNS if getattr(order, name) != getattr(before, name)}
        if order.items != before.items:
            # Before the order: if the row has an `items_message` from the previous release, a trigger clears it here.
            await session.execute(delete(order_items).where(order_items.c.order_id == order.id))
            await self._insert_items(session, order)
        if changed:
            changed["message"] = self._encode(order)
            await session.execute(update(orders).where(orders.c.id == order.id).values(changed))
        if order.tag_names != before.tag_names:
            await self._update_tags(session, order, before)

    async def _insert_items(self, session: AsyncSession, order: Order) -> None:
        rows = [(order.id, *(getattr(item, name) for name in _ITEM)) for item in order.items]
        await session.execute(_INSERT_ITEMS, arrays(("order_id", *_ITEM), rows))

    async def _update_tags(self, session: AsyncSession, order: Order, before: Order) -> None:
        now, then = _ids(order.tags), _ids(before.tags)
        if removed := then - now:
            mine = order_tags.c.order_id == order.id
            await session.execute(delete(order_tags).where(mine, order_tags.c.tag_id.in_(removed)))
        if added := now - then:
            await session.execute(insert(order_tags), [{"order_id": order.id, "tag_id": tag} for tag in sorted(added)])


def _order(row: Any) -> Order:  # noqa: ANN401 - a row of `_ORDERS_BY_IDS`
    """Return the order of a row."""
    items = [
        OrderItem(
            id=UUID(item_id),
            product_id=product_id,
            name=name,
            quantity=int(quantity),
            unit_price=Decimal(unit_price),
            subtotal=Decimal(subtotal),
        )
        for item_id, product_id, name, quantity, unit_price, subtotal in orjson.loads(row.items or "[]")
    ]
    tags = [Tag(id=UUID(tag_id), name=name) for tag_id, name in orjson.loads(row.tags or "[]")]
    columns = {name: getattr(row, name) for name in _COLUMNS}
    columns["status"] = OrderStatus(row.status)
    columns["credit_state"] = CreditState(row.credit_state) if row.credit_state else None
    return Order(**columns, items=items, tags=tags)


def _copy(order: Order) -> Order:
    """Return a copy of the order. Its lists are copied; their elements are replaced, never changed."""
    return replace(order, items=list(order.items), tags=list(order.tags))


def _ids(tags: Iterable[Tag]) -> set[UUID]:
    return {tag.id for tag in tags}
