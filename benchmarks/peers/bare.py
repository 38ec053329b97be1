"""Bare: grpc.aio and asyncpg, written by hand with as few steps as possible; every call is one statement.

For successful calls of these methods it does what the service does: the same rows, the same messages, and a repeated
`request_id` has one effect and one response. Missing: validation of requests, error details (one status for all
reasons), filters other than `user_id`, credit, etags, `validate_only`, request ids of ConfirmOrder, retries, timeouts,
the log, and encoded messages in rows.

The pool is asyncpg's with its defaults, which resets a connection with a statement after each use.
"""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from hashlib import sha256
from typing import Any

import asyncpg
import commerce.orders.v1.order_service_pb2 as orders_pb
import commerce.users.v1.user_service_pb2 as users_pb
import grpc
from commerce.orders.v1.order_pb2 import Order, OrderItem, OrderStatus
from commerce.orders.v1.order_service_pb2_grpc import OrderServiceServicer, add_OrderServiceServicer_to_server
from commerce.users.v1.user_pb2 import UserState
from commerce.users.v1.user_service_pb2_grpc import UserServiceServicer, add_UserServiceServicer_to_server
from google.type.money_pb2 import Money
from uuid_utils import uuid7

from benchmarks.peers.serving import POOL_SIZE, Context, database_url, page_token, position, run

# The fields of a message as a dict, which protobuf accepts for a nested message; its stubs do not.
Fields = Any
NANOS = 1_000_000_000
NUMBER_BLOCK = 32
STATES = {name.removeprefix("USER_STATE_"): number for name, number in UserState.items()}
STATUSES = {name.removeprefix("ORDER_STATUS_"): number for name, number in OrderStatus.items()}

USERS = """
SELECT u.id, u.email, u.username, u.full_name, p.bio, p.avatar_url, u.state, u.superuser, u.version,
    u.create_time, u.update_time, u.delete_time, u.purge_time
FROM users u LEFT JOIN user_profiles p ON p.user_id = u.id
"""
USER = f"{USERS} WHERE u.id = $1"
USERS_OF_IDS = f"{USERS} WHERE u.id = ANY($1)"
# Items are read as JSON, and amounts as units and nanos: the fewest steps from rows to messages.
ORDER_COLUMNS = """
o.id, o.order_number, o.user_id, o.status, o.currency, trunc(o.total_amount)::bigint,
(o.total_amount % 1 * 1000000000)::int, o.external_ref, o.metadata, o.tracking_number, o.cancel_reason, o.version,
o.create_time, o.update_time,
(SELECT json_agg(json_build_array(i.id, i.product_id, i.name, i.quantity, trunc(i.unit_price)::bigint,
    (i.unit_price % 1 * 1000000000)::int, trunc(i.subtotal)::bigint, (i.subtotal % 1 * 1000000000)::int) ORDER BY i.id)
    FROM order_items i WHERE i.order_id = o.id),
ARRAY(SELECT t.name FROM order_tags ot JOIN tags t ON t.id = ot.tag_id WHERE ot.order_id = o.id ORDER BY t.name)
"""
ORDERS = f"SELECT {ORDER_COLUMNS} FROM orders o WHERE o.user_id = $1"  # noqa: S608 - constants, as below
NEWEST = "ORDER BY o.create_time DESC, o.id DESC LIMIT $2"
FIRST_ORDERS = f"{ORDERS} {NEWEST}"
NEXT_ORDERS = f"{ORDERS} AND (o.create_time, o.id) < ($3, $4) {NEWEST}"
BUYER = "buyer AS (SELECT id FROM users WHERE id = $3 AND state = 'ACTIVE' FOR SHARE)"
PLACED = """
placed AS (
    INSERT INTO orders (id, order_number, user_id, status, currency, total_amount, external_ref, metadata, version,
        create_time, update_time)
    SELECT $1, $2, id, 'PENDING', $4, $5, $6, $7, 1, $8, $8 FROM {source}
    RETURNING id, user_id
), items AS (
    INSERT INTO order_items (order_id, id, product_id, name, quantity, unit_price, subtotal)
    SELECT $1, i.* FROM placed,
        unnest($9::uuid[], $10::text[], $11::text[], $12::int[], $13::numeric[], $14::numeric[]) i
)
INSERT INTO events (id, aggregate_type, aggregate_id, type, actor, create_time, changes, user_id, status)
SELECT $15, 'order', id, 'CREATED', 'anonymous', $8, '[]', user_id, 'PENDING' FROM placed
RETURNING true
"""
CREATE_ORDER = f"WITH {BUYER}, {PLACED.format(source='buyer')}"
CLAIM = """
claim AS (
    INSERT INTO request_ids (caller, method, request_id, body_digest, response)
    SELECT 'anonymous', '/commerce.orders.v1.OrderService/CreateOrder', $16, $17, $18 FROM buyer
    ON CONFLICT DO NOTHING RETURNING $3::uuid AS id
)
"""
CREATE_ORDER_ONCE = f"WITH {BUYER}, {CLAIM}, {PLACED.format(source='claim')}"
ANSWER = """
SELECT body_digest, response FROM request_ids
WHERE caller = 'anonymous' AND method = '/commerce.orders.v1.OrderService/CreateOrder' AND request_id = $1
"""
CONFIRM_ORDER = f"""
WITH o AS (
    UPDATE orders SET status = 'CONFIRMED', version = version + 1, update_time = greatest(update_time, $2)
    WHERE id = $1 AND status = 'PENDING' AND credit_state IS NULL
    RETURNING *
), confirmed AS (
    INSERT INTO events (id, aggregate_type, aggregate_id, type, actor, create_time, changes, user_id, status)
    SELECT $3, 'order', id, 'CONFIRMED', 'anonymous', update_time,
        '[{{"field": "status", "old_value": "PENDING", "new_value": "CONFIRMED"}}]', user_id, status
    FROM o
)
SELECT {ORDER_COLUMNS} FROM o
"""  # noqa: S608 - constants


class Users(UserServiceServicer):
    """GetUser by id, and BatchGetUsers."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def GetUser(self, request: users_pb.GetUserRequest, context: Context) -> users_pb.GetUserResponse:
        row = await self._pool.fetchrow(USER, request.id)
        if row is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such user")
        return users_pb.GetUserResponse(user=user_fields(row))

    async def BatchGetUsers(
        self, request: users_pb.BatchGetUsersRequest, context: Context
    ) -> users_pb.BatchGetUsersResponse:
        users = {user["id"]: user for user in map(user_fields, await self._pool.fetch(USERS_OF_IDS, request.ids))}
        try:
            return users_pb.BatchGetUsersResponse(users=[users[user_id] for user_id in request.ids])
        except KeyError:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such user")


class Orders(OrderServiceServicer):
    """ListOrders of a user, CreateOrder and ConfirmOrder."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._numbers = iter(range(0))

    async def ListOrders(self, request: orders_pb.ListOrdersRequest, context: Context) -> orders_pb.ListOrdersResponse:
        size = request.page_size or 50
        if request.page_token:
            rows = await self._pool.fetch(NEXT_ORDERS, request.user_id, size + 1, *position(request.page_token))
        else:
            rows = await self._pool.fetch(FIRST_ORDERS, request.user_id, size + 1)
        token = page_token(rows[size - 1]["create_time"], rows[size - 1]["id"]) if len(rows) > size else ""
        return orders_pb.ListOrdersResponse(orders=map(order_fields, rows[:size]), next_page_token=token)

    async def CreateOrder(
        self, request: orders_pb.CreateOrderRequest, context: Context
    ) -> orders_pb.CreateOrderResponse:
        now, asked = datetime.now(UTC), request.order
        items = [new_item(item) for item in asked.items]
        currency = asked.items[0].unit_price.currency_code
        total = sum(item.pop("nanos") for item in items)
        order = Order(
            id=str(uuid7()),
            order_number=f"ORD-{await self._next_number():08d}",
            user_id=asked.user_id,
            status=STATUSES["PENDING"],
            items=items,
            total_amount=money(currency, *divmod(total, NANOS)),
            external_ref=asked.external_ref,
            metadata=asked.metadata,
            etag="v1",
            create_time=timestamp(now),
            update_time=timestamp(now),
        )
        response = orders_pb.CreateOrderResponse(order=order)
        values: list[object] = [
            order.id,
            order.order_number,
            order.user_id,
            currency,
            decimal(order.total_amount),
            order.external_ref or None,
            json.dumps(dict(order.metadata)),
            now,
            [item.id for item in order.items],
            [item.product_id for item in order.items],
            [item.name for item in order.items],
            [item.quantity for item in order.items],
            [decimal(item.unit_price) for item in order.items],
            [decimal(item.subtotal) for item in order.items],
            str(uuid7()),
        ]
        if not request.request_id:
            if not await self._pool.fetchval(CREATE_ORDER, *values):
                await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no such active user")
            return response
        digest = sha256(request.SerializeToString(deterministic=True)).digest()
        values += [request.request_id, digest, response.SerializeToString()]
        if await self._pool.fetchval(CREATE_ORDER_ONCE, *values):
            return response
        answered = await self._pool.fetchrow(ANSWER, request.request_id)
        if answered is None or answered["body_digest"] != digest:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no such active user, or a used request_id")
        return orders_pb.CreateOrderResponse.FromString(answered["response"])

    async def ConfirmOrder(
        self, request: orders_pb.ConfirmOrderRequest, context: Context
    ) -> orders_pb.ConfirmOrderResponse:
        row = await self._pool.fetchrow(CONFIRM_ORDER, request.id, datetime.now(UTC), str(uuid7()))
        if row is None:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no such PENDING order")
        return orders_pb.ConfirmOrderResponse(order=order_fields(row))

    async def _next_number(self) -> int:
        # Each value of the sequence stands for a block of this many order numbers: one query per block.
        number = next(self._numbers, None)
        while number is None:
            start = await self._pool.fetchval("SELECT nextval('order_number_seq')")
            self._numbers = iter(range(start, start + NUMBER_BLOCK))
            number = next(self._numbers, None)
        return number


def user_fields(row: Sequence[Any]) -> Fields:
    """Return the fields of a user."""
    user_id, email, username, full_name, bio, avatar_url, state, superuser, version, *times = row
    create_time, update_time, delete_time, purge_time = times
    return {
        "id": str(user_id),
        "email": email,
        "username": username,
        "full_name": full_name,
        "profile": {"bio": bio, "avatar_url": avatar_url},
        "state": STATES[state],
        "superuser": superuser,
        "etag": f"v{version}",
        "create_time": timestamp(create_time),
        "update_time": timestamp(update_time),
        "delete_time": timestamp(delete_time) if delete_time else None,
        "purge_time": timestamp(purge_time) if purge_time else None,
    }


def order_fields(row: Sequence[Any]) -> Fields:
    """Return the fields of an order."""
    order_id, order_number, user_id, status, currency, units, nanos, external_ref, metadata, *rest = row
    tracking_number, cancel_reason, version, create_time, update_time, items, tags = rest
    return {
        "id": str(order_id),
        "order_number": order_number,
        "user_id": str(user_id),
        "status": STATUSES[status],
        "items": [
            {
                "id": item_id,
                "product_id": product_id,
                "name": name,
                "quantity": quantity,
                "unit_price": {"currency_code": currency, "units": price, "nanos": price_nanos},
                "subtotal": {"currency_code": currency, "units": subtotal, "nanos": subtotal_nanos},
            }
            for item_id, product_id, name, quantity, price, price_nanos, subtotal, subtotal_nanos in json.loads(items)
        ],
        "total_amount": money(currency, units, nanos),
        "external_ref": external_ref,
        "metadata": json.loads(metadata),
        "tags": tags,
        "tracking_number": tracking_number,
        "cancel_reason": cancel_reason,
        "etag": f"v{version}",
        "create_time": timestamp(create_time),
        "update_time": timestamp(update_time),
    }


def new_item(item: OrderItem) -> Fields:
    """Return the fields of an item of a new order, and its subtotal in nanos as `nanos`."""
    price = item.unit_price
    nanos = (price.units * NANOS + price.nanos) * item.quantity
    return {
        "id": str(uuid7()),
        "product_id": item.product_id,
        "name": item.name,
        "quantity": item.quantity,
        "unit_price": price,
        "subtotal": money(price.currency_code, *divmod(nanos, NANOS)),
        "nanos": nanos,
    }


def money(currency: str, units: int, nanos: int) -> Fields:
    """Return the fields of an amount."""
    return {"currency_code": currency, "units": units, "nanos": nanos}


def decimal(amount: Money) -> Decimal:
    """Return an amount as a decimal number."""
    return Decimal(amount.units * NANOS + amount.nanos).scaleb(-9)


def timestamp(time: datetime) -> Fields:
    """Return the fields of a time."""
    return {"seconds": int(time.timestamp()), "nanos": time.microsecond * 1000}


@asynccontextmanager
async def adding(server: grpc.aio.Server) -> AsyncIterator[None]:
    """Register both services, with a pool that is closed when the block ends."""
    async with asyncpg.create_pool(database_url(), min_size=POOL_SIZE, max_size=POOL_SIZE) as pool:
        add_UserServiceServicer_to_server(Users(pool), server)  # type: ignore[abstract] # implements some methods only
        add_OrderServiceServicer_to_server(Orders(pool), server)  # type: ignore[abstract] # implements some methods only
        yield


if __name__ == "__main__":
    run(adding)
