"""The pictures of Work and Live in docs/console.md; `tests.console.screenshots` makes them."""

from collections.abc import Awaitable, Callable
from typing import Any

from playwright.async_api import expect

from tests.console.conftest import Console

USERS, ORDERS = "commerce.users.v1.UserService", "commerce.orders.v1.OrderService"
ITEMS = [
    ("anvil-1", "Anvil", 2, "10", 500_000_000),
    ("rocket-7", "Rocket", 1, "99", 0),
    ("bolt-3", "Bolt", 12, "0", 250_000_000),
]


async def orders(console: Console) -> None:
    """The table of orders."""
    await seed(console)
    await console.open("/orders")
    await expect(console.page.locator("tbody tr").first).to_be_visible()
    await expect(console.page.locator("tbody a[data-user]")).to_have_count(0)


async def order(console: Console) -> None:
    """An order that was shipped, with a note."""
    await console.open(f"/orders/{(await shipped(console))['id']}")
    await expect(console.page.get_by_text("Call back on Monday")).to_be_visible()
    await expect(console.page.get_by_text("updates by itself")).to_be_visible()


async def cancel(console: Console) -> None:
    """The dialog that cancels an order, checked."""
    found = (await console.call(f"{ORDERS}/ListOrders", {"statuses": ["ORDER_STATUS_CONFIRMED"]}))["orders"][0]
    await console.open(f"/orders/{found['id']}?do=cancel")
    await console.page.get_by_label("Reason").fill("The customer changed their mind")
    await console.page.keyboard.press("Enter")
    await expect(console.page.get_by_label("I understand")).to_be_visible()


async def user(console: Console) -> None:
    """A user with credit and orders."""
    await console.open("/users/example.shopper")
    await expect(console.page.get_by_role("region", name="Ledger entries")).to_be_visible()


async def live(console: Console) -> None:
    """Events, which others have caused."""
    await console.open("/live?start=earliest")
    await expect(console.page.locator(".event").first).to_be_visible()
    await expect(console.page.locator(".event a[data-order], .event a[data-user]")).to_have_count(0)


async def seed(console: Console) -> None:
    """Create orders in every status, one of them with a note."""
    buyer = await console.create_user("example.shopper", fullName="Example Shopper")
    credit = {"currencyCode": "EUR", "units": "500"}
    await console.call(f"{USERS}/GrantCredit", {"userId": buyer["id"], "amount": credit, "description": "Goodwill"})
    for index in range(10):
        created = await place(console, buyer["id"], index)
        request: dict[str, Any] = {"id": created["id"]}
        steps = ["ConfirmOrder", "ProcessOrder", "ShipOrder", "DeliverOrder"][: index % 5]
        for step in steps:
            extra = {"trackingNumber": f"JD01460000{index:04}"} if step == "ShipOrder" else {}
            await console.call(f"{ORDERS}/{step}", {**request, **extra})
        if index % 5 == 0:
            await console.call(f"{ORDERS}/CancelOrder", {**request, "reason": "Out of stock"})
        if index == 3:
            note = {"orderId": created["id"], "authorId": buyer["id"], "body": "Call back on Monday about the bolts."}
            await console.call(f"{ORDERS}/CreateOrderNote", {"note": note})


async def place(console: Console, user_id: str, index: int) -> dict[str, Any]:
    """Place an order, some with tags, some paid with credit."""
    items = [
        {"productId": product, "name": name, "quantity": quantity + index, "unitPrice": price(units, nanos)}
        for product, name, quantity, units, nanos in ITEMS[: 1 + index % 3]
    ]
    order = {"userId": user_id, "items": items, "externalRef": f"shop-{index:04}", "metadata": {"channel": "web"}}
    request = {"order": order, "payWithCredit": index in {3, 6}}
    created: dict[str, Any] = (await console.call(f"{ORDERS}/CreateOrder", request))["order"]
    if index % 2:
        await console.call(
            f"{ORDERS}/AddOrderTags", {"id": created["id"], "tags": ["gift wrap", "priority"][: 1 + index % 4 // 2]}
        )
    return created


def price(units: str, nanos: int) -> dict[str, Any]:
    """Return an amount in EUR."""
    return {"currencyCode": "EUR", "units": units, "nanos": nanos}


async def shipped(console: Console) -> dict[str, Any]:
    """Return the order with the note."""
    found = await console.call(
        f"{ORDERS}/ListOrders", {"statuses": ["ORDER_STATUS_SHIPPED"], "orderBy": "LIST_ORDERS_ORDER_BY_OLDEST"}
    )
    first: dict[str, Any] = found["orders"][0]
    return first


PICTURES: dict[str, Callable[[Console], Awaitable[None]]] = {
    "orders": orders,
    "order": order,
    "cancel": cancel,
    "user": user,
    "live": live,
}
