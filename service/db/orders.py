"""The write side of orders."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload
from uuid_utils.compat import uuid7

from service.db.tables import ORDER_NUMBER_BLOCK, order_number_sequence, orders
from service.db.tables import tags as tags_table
from service.domain.errors import OrderNotFound
from service.domain.orders import CreditState, Order, OrderStatus
from service.domain.tags import Tag


class OrderNumbers:
    """Order numbers for one process, taken from the database's sequence in blocks.

    So most orders know their number without asking. What is left of a block when the process ends is never used.
    """

    def __init__(self) -> None:
        self._block = iter(range(0))

    async def next(self, session: AsyncSession) -> str:
        """Return a number that nobody else gets."""
        number = next(self._block, None)
        while number is None:
            # A sequence does not roll back, so the block stays ours whatever becomes of the transaction.
            start = await session.scalar(select(order_number_sequence.next_value()))
            # Two calls can get here at once: the later block wins, and the rest of the other is lost.
            self._block = iter(range(start or 0, (start or 0) + ORDER_NUMBER_BLOCK))
            number = next(self._block, None)
        return f"ORD-{number:08d}"


class Orders:
    """Implements `service.application.ports.OrderRepository` in the transaction that `begin` gives."""

    def __init__(self, begin: Callable[[], Awaitable[AsyncSession]], numbers: OrderNumbers) -> None:
        self._begin = begin
        self._numbers = numbers

    async def next_number(self) -> str:
        """Return an order number that no order has or will have."""
        return await self._numbers.next(await self._begin())

    async def add(self, order: Order) -> None:
        """Keep a new order; OrderAlreadyExists comes with the flush."""
        (await self._begin()).add(order)

    async def held_by_others(self, user_id: UUID) -> Sequence[Order]:
        """Return the user's orders for which another user's credit is held, locked against other changes."""
        session = await self._begin()
        statement = select(Order).where(
            orders.c.user_id == user_id, orders.c.credit_user_id != user_id, orders.c.credit_state == CreditState.HELD
        )
        return (await session.scalars(statement.order_by(orders.c.id).with_for_update(key_share=True))).all()

    async def transfer(self, from_user_id: UUID, to_user_id: UUID, now: datetime) -> Sequence[tuple[UUID, OrderStatus]]:
        """Give all orders of a user, who is locked, to another, and return which; raises OrderAlreadyExists."""
        session = await self._begin()
        statement = update(orders).where(orders.c.user_id == from_user_id).returning(orders.c.id, orders.c.status)
        changed = {
            "user_id": to_user_id,
            "version": orders.c.version + 1,
            "update_time": func.greatest(orders.c.update_time, now),
        }
        return [(row.id, row.status) for row in await session.execute(statement.values(changed))]

    async def get_for_update(self, order_id: UUID) -> Order:
        """Return the order with its items and tags, locked against other changes; raises OrderNotFound."""
        session = await self._begin()
        # The items and tags come with statements of their own, after the lock is had: joined to the first, they would
        # be those from before the change that it waited for.
        items = selectinload(Order.items)  # type: ignore[arg-type] # mapped imperatively
        tags = selectinload(Order.tags)  # type: ignore[arg-type] # mapped imperatively
        statement = select(Order).where(orders.c.id == order_id).options(items, tags)
        order = await session.scalar(statement.with_for_update(key_share=True))
        if order is None:
            raise OrderNotFound(str(order_id))
        return order

    async def lock(self, order_id: UUID) -> None:
        """Lock the order against other changes, and its timeline with it; raises OrderNotFound."""
        session = await self._begin()
        statement = select(orders.c.id).where(orders.c.id == order_id).with_for_update(key_share=True)
        if await session.scalar(statement) is None:
            raise OrderNotFound(str(order_id))

    async def tags(self, names: Sequence[str]) -> Sequence[Tag]:
        """Return the tags of these normalised names, made where missing."""
        session = await self._begin()
        statement = select(Tag).where(tags_table.c.name.in_(names))
        found = (await session.scalars(statement)).all()
        if missing := sorted(set(names) - {tag.name for tag in found}):
            # Another call may make the same ones: then this waits for it. Sorted, so that no two wait for each other.
            rows = [{"id": uuid7(), "name": name} for name in missing]
            await session.execute(insert(tags_table).values(rows).on_conflict_do_nothing())
            found = (await session.scalars(statement)).all()
        return found
