"""Guide: grpc.aio and SQLAlchemy's ORM, as the usual guides teach it.

One session per call, models with relationships loaded by `selectinload`, `add`, `flush`, `refresh` and `commit`, and a
pool that pings connections. For successful calls of these methods it does what the service does: the same rows, the
same messages, and a repeated `request_id` has one effect and one response. Missing: validation of requests, error
details (few statuses, without reasons), filters other than `user_id`, credit, etags, `validate_only`, request ids of
ConfirmOrder, retries, timeouts, the log, and encoded messages in rows.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from hashlib import sha256
from uuid import UUID

import commerce.orders.v1.order_pb2 as order_pb
import commerce.orders.v1.order_service_pb2 as orders_pb
import commerce.users.v1.user_pb2 as user_pb
import commerce.users.v1.user_service_pb2 as users_pb
import grpc
from commerce.orders.v1.order_service_pb2_grpc import OrderServiceServicer, add_OrderServiceServicer_to_server
from commerce.users.v1.user_service_pb2_grpc import UserServiceServicer, add_UserServiceServicer_to_server
from google.protobuf.timestamp_pb2 import Timestamp
from google.type.money_pb2 import Money
from sqlalchemy import select, tuple_
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import joinedload, selectinload

from benchmarks.peers.models import Answer, Event, Order, OrderItem, User, create_sessions
from benchmarks.peers.serving import Context, page_token, position, run

NANOS = 1_000_000_000
CREATE_ORDER = "/commerce.orders.v1.OrderService/CreateOrder"


class Users(UserServiceServicer):
    """GetUser by id, and BatchGetUsers."""

    def __init__(self, sessions: async_sessionmaker[AsyncSession]) -> None:
        self._sessions = sessions

    async def GetUser(self, request: users_pb.GetUserRequest, context: Context) -> users_pb.GetUserResponse:
        async with self._sessions() as session:
            user = await session.get(User, UUID(request.id), options=[joinedload(User.profile)])
            if user is None:
                await context.abort(grpc.StatusCode.NOT_FOUND, "no such user")
            return users_pb.GetUserResponse(user=user_message(user))

    async def BatchGetUsers(
        self, request: users_pb.BatchGetUsersRequest, context: Context
    ) -> users_pb.BatchGetUsersResponse:
        ids = [UUID(user_id) for user_id in request.ids]
        async with self._sessions() as session:
            statement = select(User).where(User.id.in_(ids)).options(joinedload(User.profile))
            users = {user.id: user for user in await session.scalars(statement)}
            if len(users) < len(set(ids)):
                await context.abort(grpc.StatusCode.NOT_FOUND, "no such user")
            return users_pb.BatchGetUsersResponse(users=[user_message(users[user_id]) for user_id in ids])


class Orders(OrderServiceServicer):
    """ListOrders of a user, CreateOrder and ConfirmOrder."""

    def __init__(self, sessions: async_sessionmaker[AsyncSession]) -> None:
        self._sessions = sessions

    async def ListOrders(self, request: orders_pb.ListOrdersRequest, context: Context) -> orders_pb.ListOrdersResponse:
        size = request.page_size or 50
        statement = (
            select(Order)
            .where(Order.user_id == UUID(request.user_id))
            .options(selectinload(Order.items), selectinload(Order.tags))
            .order_by(Order.create_time.desc(), Order.id.desc())
            .limit(size + 1)
        )
        if request.page_token:
            statement = statement.where(tuple_(Order.create_time, Order.id) < position(request.page_token))
        async with self._sessions() as session:
            orders = (await session.scalars(statement)).all()
            token = page_token(orders[size - 1].create_time, orders[size - 1].id) if len(orders) > size else ""
            return orders_pb.ListOrdersResponse(orders=map(order_message, orders[:size]), next_page_token=token)

    async def CreateOrder(
        self, request: orders_pb.CreateOrderRequest, context: Context
    ) -> orders_pb.CreateOrderResponse:
        async with self._sessions() as session:
            answer = None
            if request.request_id:
                key = ("anonymous", CREATE_ORDER, UUID(request.request_id))
                digest = sha256(request.SerializeToString(deterministic=True)).digest()
                answer = Answer(caller=key[0], method=key[1], request_id=key[2], body_digest=digest)
                session.add(answer)
                try:
                    await session.flush()
                except IntegrityError:
                    await session.rollback()
                    earlier = await session.get(Answer, key)
                    if earlier is None or earlier.response is None or earlier.body_digest != digest:
                        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the request_id was used")
                    return orders_pb.CreateOrderResponse.FromString(earlier.response)
            user = await session.get(User, UUID(request.order.user_id), with_for_update={"read": True})
            if user is None or user.state != "ACTIVE":
                await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no such active user")
            order = new_order(request.order)
            session.add(order)
            await session.flush()
            session.add(Event.of_order(order, "CREATED"))
            await session.refresh(order, ["order_number"])
            response = orders_pb.CreateOrderResponse(order=order_message(order))
            if answer:
                answer.response = response.SerializeToString()
            await session.commit()
            return response

    async def ConfirmOrder(
        self, request: orders_pb.ConfirmOrderRequest, context: Context
    ) -> orders_pb.ConfirmOrderResponse:
        async with self._sessions() as session:
            options = [selectinload(Order.items), selectinload(Order.tags)]
            order = await session.get(Order, UUID(request.id), options=options, with_for_update=True)
            if order is None or order.status != "PENDING" or order.credit_state is not None:
                await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no such PENDING order")
            change = {"field": "status", "old_value": order.status, "new_value": "CONFIRMED"}
            order.status = "CONFIRMED"
            order.version += 1
            order.update_time = max(datetime.now(UTC), order.update_time)
            session.add(Event.of_order(order, "CONFIRMED", change))
            await session.commit()
            return orders_pb.ConfirmOrderResponse(order=order_message(order))


def user_message(user: User) -> user_pb.User:
    """Return a user as a message."""
    return user_pb.User(
        id=str(user.id),
        email=user.email,
        username=user.username,
        full_name=user.full_name,
        profile=user_pb.UserProfile(
            bio=user.profile.bio if user.profile else "", avatar_url=user.profile.avatar_url if user.profile else ""
        ),
        state=user_pb.UserState.Value(f"USER_STATE_{user.state}"),
        superuser=user.superuser,
        etag=user.etag,
        create_time=timestamp(user.create_time),
        update_time=timestamp(user.update_time),
        delete_time=timestamp(user.delete_time) if user.delete_time else None,
        purge_time=timestamp(user.purge_time) if user.purge_time else None,
    )


def order_message(order: Order) -> order_pb.Order:
    """Return an order as a message."""
    return order_pb.Order(
        id=str(order.id),
        order_number=order.order_number,
        user_id=str(order.user_id),
        status=order_pb.OrderStatus.Value(f"ORDER_STATUS_{order.status}"),
        items=[
            order_pb.OrderItem(
                id=str(item.id),
                product_id=item.product_id,
                name=item.name,
                quantity=item.quantity,
                unit_price=money(order.currency, item.unit_price),
                subtotal=money(order.currency, item.subtotal),
            )
            for item in order.items
        ],
        total_amount=money(order.currency, order.total_amount),
        external_ref=order.external_ref or "",
        metadata=order.metadata_,
        tags=order.tag_names,
        tracking_number=order.tracking_number or "",
        cancel_reason=order.cancel_reason or "",
        etag=order.etag,
        create_time=timestamp(order.create_time),
        update_time=timestamp(order.update_time),
    )


def new_order(message: order_pb.Order) -> Order:
    """Return a new order made from the message in a request."""
    items = [
        OrderItem(
            product_id=item.product_id,
            name=item.name,
            quantity=item.quantity,
            unit_price=Decimal(item.unit_price.units) + Decimal(item.unit_price.nanos) / NANOS,
        )
        for item in message.items
    ]
    currency = message.items[0].unit_price.currency_code
    return Order.place(UUID(message.user_id), currency, items, message.external_ref or None, dict(message.metadata))


def money(currency: str, amount: Decimal) -> Money:
    """Return an amount as a message."""
    units = int(amount)
    return Money(currency_code=currency, units=units, nanos=int((amount - units) * NANOS))


def timestamp(time: datetime) -> Timestamp:
    """Return a time as a message."""
    message = Timestamp()
    message.FromDatetime(time)
    return message


@asynccontextmanager
async def adding(server: grpc.aio.Server) -> AsyncIterator[None]:
    """Register both services, with an engine that is disposed when the block ends."""
    sessions = create_sessions()
    add_UserServiceServicer_to_server(Users(sessions), server)  # type: ignore[abstract] # implements some methods only
    add_OrderServiceServicer_to_server(Orders(sessions), server)  # type: ignore[abstract] # implements some methods only
    yield
    await sessions.kw["bind"].dispose()


if __name__ == "__main__":
    run(adding)
