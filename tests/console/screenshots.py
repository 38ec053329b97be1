"""Make the pictures of docs/console.md: `python -m tests.console.screenshots`.

A server with a database of its own, invented data, and Chromium, as in the tests of the console.
"""

import asyncio
import io
import json
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from PIL import Image
from playwright.async_api import expect

from service.devtools.embedded_postgres import embedded_postgres
from tests.console import screenshots_of_work
from tests.console.conftest import Console, opened
from tests.http.conftest import running_site
from tests.support.browsers import running_browser
from tests.support.databases import cloned, migrated_template
from tests.support.paths import ROOT

FOLDER = ROOT / "docs" / "console"
USERS, ORDERS = "commerce.users.v1.UserService", "commerce.orders.v1.OrderService"
WIDTH, HEIGHT = 1280, 860
# Enough for text, shadows and rounded corners.
COLORS = 128


async def explore(console: Console) -> None:
    """The form of CreateOrder, with a response."""
    user = (await console.call(f"{USERS}/GetUser", {"username": "example.user.1"}))["user"]
    price = {"currencyCode": "EUR", "units": "12", "nanos": 500_000_000}
    item = {"productId": "rocket-7", "name": "Rocket", "quantity": 2, "unitPrice": price}
    request = {"order": {"userId": user["id"], "items": [item]}, "validateOnly": True}
    await fill(console, f"{ORDERS}/CreateOrder", request)
    await console.page.get_by_role("button", name="Call", exact=True).click()
    await expect(console.page.locator(".response-card")).to_contain_text("€25.00")


async def error(console: Console) -> None:
    """A call that the service refuses."""
    order = (await console.call(f"{ORDERS}/ListOrders", {}))["orders"][0]
    await fill(console, f"{ORDERS}/ShipOrder", {"id": order["id"], "trackingNumber": "JD014600003828"})
    await console.page.get_by_role("button", name="Call", exact=True).click()
    await expect(console.page.locator(".response-card")).to_contain_text("ILLEGAL_TRANSITION")


async def history(console: Console) -> None:
    """The calls that the other pictures have made."""
    await console.open("/explore/history")


async def fill(console: Console, method: str, request: object) -> None:
    """Write the request of a method."""
    await console.open(f"/explore/{method}")
    await console.page.get_by_role("tab", name="JSON").first.click()
    await console.page.get_by_label("Request as JSON").fill(json.dumps(request))
    await console.page.get_by_role("tab", name="Form").click()


async def seed(console: Console) -> None:
    """Create what the pictures show."""
    for number in range(1, 6):
        name = f"Example User {number}"
        user = await console.create_user(f"example.user.{number}", fullName=name)
        for reference in range(number):
            await console.create_order(user["id"], externalRef=f"web-{number}{reference:03}")


# By the names of their files, in the order in which they are made.
PICTURES: dict[str, Callable[[Console], Awaitable[None]]] = {
    "explore": explore,
    "error": error,
    "history": history,
    **screenshots_of_work.PICTURES,
}
# Those that are also made in dark and on a phone.
DARK, PHONE = {"error", "cancel"}, {"explore", "order"}


async def save(console: Console, name: str) -> None:
    """Take a picture of what the window shows."""
    # Of a caret that blinks, or of a message that goes away, no two pictures are equal.
    await console.page.evaluate("document.activeElement?.blur()")
    await expect(console.page.locator(".toast")).to_have_count(0)
    taken = await console.page.screenshot(animations="disabled", caret="hide")
    picture = Image.open(io.BytesIO(taken)).convert("RGB").quantize(COLORS, dither=Image.Dither.NONE)
    picture.save(FOLDER / f"{name}.png", optimize=True)


async def make_pictures() -> None:
    """Make all pictures."""
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, embedded_postgres(Path(folder)) as postgres_url:
        template_url = await migrated_template(postgres_url)
        async with (
            cloned(postgres_url, template_url) as url,
            running_site(url, console=True) as site,
            running_browser() as browser,
        ):
            context, console = await opened(browser, site, viewport={"width": WIDTH, "height": HEIGHT})
            await seed(console)
            for name, show in PICTURES.items():
                await console.page.emulate_media(color_scheme="dark" if name in DARK else "light")
                await show(console)
                await save(console, name)
                if name in PHONE:
                    await console.page.set_viewport_size({"width": 390, "height": 780})
                    await save(console, f"{name}-phone")
                    await console.page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
            await context.close()


if __name__ == "__main__":
    asyncio.run(make_pictures())
