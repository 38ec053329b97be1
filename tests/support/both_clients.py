"""The two clients of `commerce.client` behind one face, so that a test checks both."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal
from uuid import UUID, uuid4

from commerce.client import AsyncClient, Client, Money

from tests.support.passwords import PASSWORD

Kind = Literal["sync", "asyncio"]
KINDS: tuple[Kind, ...] = ("sync", "asyncio")
ITEM: Any = {"product_id": "r7", "name": "Rocket", "quantity": 2, "unit_price": Money("5.25", "EUR")}


class BothClients:
    """A `Client`, whose calls run in threads, or an `AsyncClient`."""

    def __init__(self, kind: Kind, client: Any) -> None:
        self.kind, self.client = kind, client

    async def call(self, function: Callable[[Any], Any]) -> Any:
        """Return what a function of the client returns."""
        if self.kind == "sync":
            return await asyncio.to_thread(function, self.client)
        return await function(self.client)

    async def items(self, function: Callable[[Any], Any]) -> list[Any]:
        """Return the items of what a function of the client returns: of a list, or of its pages."""
        if self.kind == "sync":
            return await asyncio.to_thread(lambda: list(function(self.client)))
        return [item async for item in function(self.client)]

    async def create_user(self, **fields: Any) -> Any:
        """Create a user with a unique e-mail address and username."""
        name = f"u{uuid4().hex[:20]}"
        fields = {"email": f"{name}@example.com", "username": name, "password": PASSWORD, **fields}
        return await self.call(lambda client: client.users.create(**fields))

    async def create_order(self, user_id: UUID | str, **fields: Any) -> Any:
        """Create an order of one item."""
        return await self.call(lambda client: client.orders.create(user_id=user_id, items=[ITEM], **fields))

    def with_options(self, **options: Any) -> "BothClients":
        """Return the client with other options."""
        return BothClients(self.kind, self.client.with_options(**options))


@asynccontextmanager
async def both_clients(kind: Kind, *ports: int, **arguments: Any) -> AsyncIterator[BothClients]:
    """Open a client of one or several servers on this machine until the block ends."""
    address = "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in ports)
    if kind == "sync":
        client = Client(address, **arguments)
        try:
            yield BothClients(kind, client)
        finally:
            await asyncio.to_thread(client.close)
    else:
        async with AsyncClient(address, **arguments) as async_client:
            yield BothClients(kind, async_client)
