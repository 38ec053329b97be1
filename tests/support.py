"""What tests share: clients, requests that work, and what an error says."""

import asyncio
import resource
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import asyncpg
import commerce.orders.v1.order_service_pb2 as orders_pb
import commerce.users.v1.user_service_pb2 as users_pb
import grpc
import pytest
from click.testing import CliRunner
from commerce.orders.v1.order_pb2 import Order, OrderItem
from commerce.orders.v1.order_service_pb2_grpc import OrderServiceStub
from commerce.users.v1.user_pb2 import User
from commerce.users.v1.user_service_pb2_grpc import UserServiceStub
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, PreconditionFailure, ResourceInfo, RetryInfo
from google.type.money_pb2 import Money
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_status import rpc_status

from service.cli.main import main
from service.config import LogSettings, load
from service.db.connections.engine import async_url
from service.observability.logs import configure_logging
from service.rpc.call_context import x_request_id

if TYPE_CHECKING:
    # Of the stubs' types only; at run time both are one class.
    from commerce.orders.v1.order_service_pb2_grpc import OrderServiceAsyncStub
    from commerce.users.v1.user_service_pb2_grpc import UserServiceAsyncStub

PASSWORD = "correct horse battery"  # noqa: S105 - of users that live as long as a test
# The least that argon2 takes: tests are about everything but its cost.
FAST_PASSWORDS = {"argon2_time_cost": 1, "argon2_memory_kib": 8}


@dataclass(frozen=True)
class Clients:
    """Stubs on one channel."""

    channel: grpc.aio.Channel
    users: "UserServiceAsyncStub"
    orders: "OrderServiceAsyncStub"
    health: Any

    async def create_user(self, **fields: Any) -> User:
        """Create a user that nothing is like."""
        request = users_pb.CreateUserRequest(user=new_user(**fields), password=PASSWORD)
        return (await self.users.CreateUser(request)).user

    async def create_order(self, user_id: str, **fields: Any) -> Order:
        """Create an order of three items."""
        request = orders_pb.CreateOrderRequest(order=new_order(user_id, **fields))
        return (await self.orders.CreateOrder(request)).order


@asynccontextmanager
async def connect(port: int, *, own_connection: bool = False) -> AsyncIterator[Clients]:
    """Open a channel to a server on this machine; without `own_connection` they share one."""
    options = [("grpc.use_local_subchannel_pool", int(own_connection))]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        yield Clients(channel, UserServiceStub(channel), OrderServiceStub(channel), HealthStub(channel))


def new_user(**fields: Any) -> User:
    """Return a user to create, with a name of its own."""
    name = f"u{uuid4().hex[:20]}"
    return User(**{"email": f"{name}@example.com", "username": name, "full_name": "Ada Lovelace", **fields})


def new_order(user_id: str, **fields: Any) -> Order:
    """Return an order to create: 2 x 10.50 + 1 x 99 + 3 x 0.01 = 120.03 EUR."""
    items = [item("anvil", 2, 10, 500_000_000), item("rocket", 1, 99), item("bolt", 3, 0, 10_000_000)]
    return Order(**{"user_id": user_id, "items": items, **fields})


def item(product_id: str, quantity: int, units: int, nanos: int = 0, currency: str = "EUR") -> OrderItem:
    """Return an item to order."""
    price = Money(currency_code=currency, units=units, nanos=nanos)
    return OrderItem(product_id=product_id, name=product_id.title(), quantity=quantity, unit_price=price)


@dataclass
class Failure:
    """A status with its details unpacked; filled when the block of `fails` ends."""

    code: grpc.StatusCode = grpc.StatusCode.OK
    message: str = ""
    reason: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    # Field paths of BadRequest.
    fields: list[str] = field(default_factory=list)
    details: dict[type[Message], Message] = field(default_factory=dict)
    trailers: dict[str, str | bytes] = field(default_factory=dict)


@contextmanager
def fails(code: grpc.StatusCode, reason: str, *, field: str | None = None) -> Iterator[Failure]:
    """Require that the block fails with this code, this reason and, if named, this field among the wrong ones."""
    failure = Failure()
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        yield failure
    vars(failure).update(vars(failure_of(raised.value)))
    assert (failure.code, failure.reason) == (code, reason), failure
    if field is not None:
        assert field in failure.fields, failure.fields


def failure_of(error: grpc.aio.AioRpcError) -> Failure:
    """Return what the status of a failed call says."""
    failure = Failure(error.code(), error.details() or "", trailers=dict(error.trailing_metadata() or ()))
    status = rpc_status.from_call(error)  # type: ignore[arg-type] # takes the error of an aio call too
    for packed in status.details if status else ():
        for kind in (ErrorInfo, BadRequest, PreconditionFailure, ResourceInfo, RetryInfo):
            detail = kind()
            if packed.Unpack(detail):
                failure.details[kind] = detail
    info = failure.details.get(ErrorInfo)
    if isinstance(info, ErrorInfo):
        assert info.domain == "commerce"
        failure.reason, failure.metadata = info.reason, dict(info.metadata)
    if isinstance(bad_request := failure.details.get(BadRequest), BadRequest):
        failure.fields = [violation.field for violation in bad_request.field_violations]
    return failure


@asynccontextmanager
async def driver_connection(url: str) -> AsyncIterator[asyncpg.Connection]:
    """Open a connection beside the service's, as another program would."""
    parts = async_url(url)
    connection = await asyncpg.connect(
        user=parts.username,
        password=parts.password,
        database=parts.database,
        host=parts.host or parts.query.get("host"),
        port=parts.port or int(str(parts.query.get("port", 5432))),
    )
    try:
        yield connection
    finally:
        await connection.close()


def resident_megabytes() -> float:
    """Return the memory that this process has, the server's among it."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 1e6


def log_everything() -> None:
    """Log all there is as JSON."""
    configure_logging(load(LogSettings, log_format="json", log_level="debug"), call_id=x_request_id)


@dataclass
class Ran:
    """What a command did."""

    status: int
    stdout: str
    stderr: str


async def commerce(*arguments: str | Path) -> Ran:
    """Run the command in this process, which is quicker: the server answers it from the event loop."""
    try:
        # In a thread: the command runs an event loop of its own.
        result = await asyncio.to_thread(CliRunner().invoke, main, list(map(str, arguments)))
    finally:
        # A server that is made later would log as the command did.
        log_everything()
    return Ran(result.exit_code, result.stdout, result.stderr)
