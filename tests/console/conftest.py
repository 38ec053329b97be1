"""The console in a real browser, Chromium, on a real server with a database of its own."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from playwright.async_api import Browser, BrowserContext, Page, expect

from tests.http.conftest import Site, running_site
from tests.support.browsers import CHROMIUM, running_browser
from tests.support.databases import cloned

# On a busy machine.
PATIENCE_MS = 15_000
DESKTOP, PHONE = (1280, 900), (390, 844)
expect.set_options(timeout=PATIENCE_MS)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests that need a browser where there is none; `.ci/run` installs it."""
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()) and CHROMIUM is None:
            item.add_marker(pytest.mark.skip(reason="Chromium is not installed"))


class Console:
    """A page of the console.

    Attributes:
        page: the page.
        site: the server.
        url: the address of the console.
        problems: what the browser has reported as errors, such as exceptions and refused scripts.
    """

    def __init__(self, page: Page, site: Site) -> None:
        self.page = page
        self.site = site
        self.url = f"http://127.0.0.1:{site.server.http_port}/console/"
        self.problems: list[str] = []
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("console", lambda message: self._reported(message.type, message.text))

    def _reported(self, kind: str, text: str) -> None:
        # The browser reports every response with a failure, which many tests ask for.
        if kind in {"error", "warning"} and not text.startswith("Failed to load resource"):
            self.problems.append(text)

    async def open(self, view: str = "") -> None:
        """Open a view by its address, such as `/explore`, and wait until it is shown."""
        # Otherwise, the browser would stay on the page, whose last view is still there.
        await self.page.goto("about:blank")
        await self.page.goto(f"{self.url}#{view}")
        await self.page.locator("main h1").wait_for()

    async def go(self, view: str) -> None:
        """Go to another view as a link does, which loads nothing but the view."""
        await self.page.evaluate(
            "(view) => { document.querySelector('main h1').dataset.left = ''; location.hash = view; }", view
        )
        await self.page.locator("main h1:not([data-left])").wait_for()

    async def call(self, method: str, request: dict[str, Any]) -> dict[str, Any]:
        """Call a method beside the console, such as `commerce.users.v1.UserService/CreateUser`."""
        response = await self.site.http.post(f"/{method}", json=request)
        response.raise_for_status()
        answer: dict[str, Any] = response.json()
        return answer

    async def create_user(self, name: str, **fields: object) -> dict[str, Any]:
        """Create a user."""
        user = {"email": f"{name}@example.com", "username": name, **fields}
        request = {"user": user, "password": "correct horse"}
        created: dict[str, Any] = (await self.call("commerce.users.v1.UserService/CreateUser", request))["user"]
        return created

    async def create_order(self, user_id: str, **fields: object) -> dict[str, Any]:
        """Create an order of two items at 12.50 EUR."""
        price = {"currencyCode": "EUR", "units": "12", "nanos": 500_000_000}
        item = {"productId": "rocket-7", "name": "Rocket", "quantity": 2, "unitPrice": price}
        request = {"order": {"userId": user_id, "items": [item], **fields}}
        created: dict[str, Any] = (await self.call("commerce.orders.v1.OrderService/CreateOrder", request))["order"]
        return created

    async def barriers(self, *, only: str | None = None) -> list[str]:
        """Return what axe finds that keeps people from using the page, one line each.

        Args:
            only: the only rule of axe that is checked.
        """
        if not await self.page.evaluate("'axe' in window"):
            await self.page.evaluate(AXE_SCRIPT)
        violations = await self.page.evaluate(
            "async (options) => (await axe.run(options)).violations",
            {"resultTypes": ["violations"], **({"runOnly": [only]} if only else {})},
        )
        return [
            f"{violation['id']}: {node['html']} {node['failureSummary']}"
            for violation in violations
            for node in violation["nodes"]
        ]

    async def barriers_in_every_form(self) -> list[str]:
        """Return the same for a desktop and a phone, in light and in dark, and whether the page is wider than a phone.

        The page is that of a desktop again afterwards.
        """
        page = self.page
        found = []
        for size in (DESKTOP, PHONE):
            await self._resize(size)
            await page.emulate_media(color_scheme="light")
            found += await self.barriers()
            # All that a theme changes.
            await page.emulate_media(color_scheme="dark")
            found += await self.barriers(only="color-contrast")
        if await page.evaluate("document.documentElement.scrollWidth > innerWidth"):
            found.append("the page is wider than a phone")
        await self._resize(DESKTOP)
        return found

    async def _resize(self, size: tuple[int, int]) -> None:
        width, height = size
        await self.page.set_viewport_size({"width": width, "height": height})


@pytest.fixture(scope="session")
async def console_site(postgres_url: str, template_url: str) -> AsyncIterator[Site]:
    """A server with the console, and a database that only tests of the console use."""
    async with cloned(postgres_url, template_url) as url, running_site(url, console=True) as site:
        yield site


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    """A browser that all tests share, each with a window of its own."""
    async with running_browser() as browser:
        yield browser


async def opened(browser: Browser, site: Site, **options: Any) -> tuple[BrowserContext, Console]:
    """Open a window with nothing stored, and with a page that shows nothing yet."""
    width, height = DESKTOP
    options = {
        "viewport": {"width": width, "height": height},
        "locale": "en-GB",
        "timezone_id": "Europe/Paris",
        **options,
    }
    context = await browser.new_context(**options)
    context.set_default_timeout(PATIENCE_MS)
    return context, Console(await context.new_page(), site)


@pytest.fixture
async def console(browser: Browser, console_site: Site, tmp_path: Path) -> AsyncIterator[Console]:
    """A page of the console; at the end, the browser must not have reported an error."""
    context, console = await opened(browser, console_site)
    yield console
    if console.problems:
        await console.page.screenshot(path=tmp_path / "page.png")
    await context.close()
    assert console.problems == []
