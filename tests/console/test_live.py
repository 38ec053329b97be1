"""Events in the console as they come: none is lost and none comes twice."""

import asyncio
import re
from datetime import timedelta

from playwright.async_api import Browser, Locator, Page, Route, expect

from service.config import DatabaseSettings, load
from service.db.connections.engine import create_engine
from service.db.operations.retention import delete_expired_events
from tests.console.conftest import Console, opened
from tests.http.conftest import running_site

ORDERS = "commerce.orders.v1.OrderService"
USERS = "commerce.users.v1.UserService"
# A number that is more than nothing.
MORE = re.compile(r"[1-9]|0\.[1-9]")


def titles(page: Page) -> Locator:
    """Return the titles of the events, newest first."""
    return page.locator(".event strong")


async def is_live(page: Page) -> None:
    await expect(page.get_by_role("region", name="Events", exact=True).get_by_text("live", exact=True)).to_be_visible()


async def test_events_of_other_clients_appear(console: Console) -> None:
    user = await console.create_user("watched")
    page = console.page
    await console.open("/live?user=watched")
    await is_live(page)
    order = await console.create_order(user["id"])
    await console.call(f"{ORDERS}/ConfirmOrder", {"id": order["id"]})
    await console.call(f"{USERS}/DeactivateUser", {"id": user["id"]})
    events = page.locator(".event")
    await expect(events).to_have_count(3)
    await expect(
        events.filter(has_text="Order confirmed").get_by_role("link", name=order["orderNumber"])
    ).to_be_visible()
    await expect(events.filter(has_text="User deactivated").get_by_role("link", name="watched")).to_be_visible()
    await expect(page.locator(".rate-numbers")).to_have_text("2 of orders1 of users")
    # What the filter leaves out is not shown.
    other = await console.create_user("unwatched")
    await console.create_order(other["id"])
    # While it is paused, and after a reload, it goes on where it stopped.
    await page.get_by_role("button", name="Pause").click()
    await console.call(f"{ORDERS}/ProcessOrder", {"id": order["id"]})
    await expect(page.get_by_text("paused")).to_be_visible()
    await page.get_by_role("button", name="Resume").click()
    await expect(titles(page).filter(has_text="Processing begun")).to_have_count(1)
    await page.goto("about:blank")
    await console.call(f"{ORDERS}/ShipOrder", {"id": order["id"], "trackingNumber": "1Z"})
    await console.open("/live?user=watched")
    await expect(page.get_by_text("Continued where this tab stopped")).to_be_visible()
    await expect(titles(page)).to_have_text(["Order shipped"])
    await page.get_by_role("button", name="From the earliest").click()
    await expect(events).to_have_count(6)
    await page.get_by_label("Event", exact=True).select_option("CONFIRMED")
    await page.get_by_role("button", name="From the earliest").click()
    await expect(titles(page)).to_have_text(["Order confirmed"])


async def test_an_order_shows_what_others_change(console: Console) -> None:
    user = await console.create_user("followed")
    order = await console.create_order(user["id"])
    page = console.page
    await console.open(f"/orders/{order['id']}")
    await expect(page.get_by_text("updates by itself")).to_be_visible()
    await console.call(f"{ORDERS}/ConfirmOrder", {"id": order["id"]})
    await expect(page.locator("h1 .badge")).to_have_text("CONFIRMED")
    await expect(page.get_by_role("region", name="Timeline").get_by_text("Order confirmed")).to_be_visible()
    await expect(page.get_by_role("button", name="Process", exact=True)).to_be_visible()


async def test_after_a_restart_of_the_server_no_event_is_lost_or_repeated(browser: Browser, database_url: str) -> None:
    async with running_site(database_url, console=True) as site:
        port = site.server.http_port
        context, console = await opened(browser, site)
        page = console.page
        user = await console.create_user("restarted")
        await console.open("/live")
        await is_live(page)
        first = await console.create_order(user["id"])
        await expect(titles(page)).to_have_count(1)
    # Changed by another server meanwhile.
    async with running_site(database_url) as other:
        away = Console(page, other)
        for name in ("ConfirmOrder", "ProcessOrder"):
            await away.call(f"{ORDERS}/{name}", {"id": first["id"]})
        await expect(page.get_by_text("connection lost")).to_be_visible()
        await expect(
            page.get_by_role("region", name="Health").get_by_text("The server cannot be reached.")
        ).to_be_visible()
    async with running_site(database_url, console=True, http_port=port) as again:
        back = Console(page, again)
        await is_live(page)
        await back.call(f"{ORDERS}/ShipOrder", {"id": first["id"], "trackingNumber": "1Z"})
        await expect(titles(page)).to_have_text(
            ["Order shipped", "Processing begun", "Order confirmed", "Order placed"]
        )
        await context.close()
    assert console.problems == []


async def test_deleted_events_leave_a_gap_that_is_shown(browser: Browser, database_url: str) -> None:
    engine = create_engine(load(DatabaseSettings, DATABASE_URL=database_url), pool_size=1)
    async with running_site(database_url, console=True) as site:
        context, console = await opened(browser, site)
        page = console.page
        user = await console.create_user("forgotten")
        await console.open("/live?of=orders")
        await is_live(page)
        await page.get_by_role("button", name="Pause").click()
        order = await console.create_order(user["id"])
        await delete_expired_events(engine, timedelta(0))
        await console.call(f"{ORDERS}/ConfirmOrder", {"id": order["id"]})
        await page.get_by_role("button", name="Resume").click()
        await expect(page.get_by_text("Gap: events of orders")).to_be_visible()
        await expect(titles(page)).to_have_text(["Order confirmed"])
        await context.close()
    await engine.dispose()
    assert console.problems == []


async def test_the_list_is_bounded_and_rates_are_those_of_the_last_minute(console: Console) -> None:
    await console.open("/explore")
    result = await console.page.evaluate(
        """async () => {
          const { EventLog, Rate } = await import("./live/event_log.js");
          const { RecentIds } = await import("./live/watch.js");
          const log = new EventLog(3);
          for (let entry = 1; entry <= 5; entry += 1) log.add(entry);
          let now = 1_000_000;
          const rate = new Rate(() => now);
          rate.count();
          now += 30_000;
          rate.count();
          const both = rate.lastMinute();
          now += 31_000;
          const ids = new RecentIds(2);
          return {
            entries: log.entries, dropped: log.dropped, both, one: rate.lastMinute(),
            seen: ["a", "a", "b", "c", "c", "a"].map((id) => ids.add(id)),
          };
        }"""
    )
    assert result == {
        "entries": [5, 4, 3],
        "dropped": 2,
        "both": 2,
        "one": 1,
        "seen": [True, False, True, True, False, True],
    }


async def test_a_name_that_cannot_be_read_is_asked_for_once_and_keeps_no_other_name_back(console: Console) -> None:
    gone, named = [(await console.create_user(name))["id"] for name in ("not.named", "is.named")]
    page = console.page
    asked: list[list[str]] = []

    async def without_one(route: Route) -> None:
        body: dict[str, list[str]] = route.request.post_data_json or {}
        asked.append(body["ids"])
        if gone in body["ids"]:
            await route.fulfill(status=404, json={"code": 5, "message": "there is no such user", "details": []})
        else:
            await route.continue_()

    await page.route("**/BatchGetUsers", without_one)
    await console.open("/live?start=earliest&of=users")
    links = page.locator(".event").get_by_role("link")
    await expect(links.get_by_text("is.named")).to_be_visible()
    await expect(page.locator(f'.event a[data-user="{gone}"]')).to_have_count(1)
    # The list is looked through for ids without a name several times.
    await page.wait_for_timeout(2_500)
    assert asked.count([gone]) == 1
    assert sum(named in ids for ids in asked if gone not in ids) == 1


async def test_the_calls_and_the_pool_of_the_server_are_shown(browser: Browser, database_url: str) -> None:
    async with running_site(database_url, console=True, metrics_port=0) as site:
        context, console = await opened(browser, site)
        page = console.page
        await console.open("/live")
        load = page.get_by_role("region", name="Calls of the server")
        await expect(load.get_by_text(re.compile(r"^\d+ of 10"))).to_be_visible()
        ok, refused = load.locator("[data-outcome=OK] strong"), load.locator("[data-outcome=refused] strong")
        # In each period, until one of them shows both.
        async with asyncio.timeout(30):
            while not (MORE.match(await ok.inner_text()) and MORE.match(await refused.inner_text())):
                await console.call(f"{USERS}/ListUsers", {})
                await site.http.post(f"/{USERS}/GetUser", json={"username": "nobody"})
                await asyncio.sleep(0.1)
        await expect(load.get_by_text(re.compile(r"\d m?s$")).first).to_be_visible()
        await context.close()
    assert console.problems == []


async def test_without_metrics_the_page_says_why_it_shows_no_calls(console: Console) -> None:
    await console.open("/live")
    load = console.page.get_by_role("region", name="Calls of the server")
    await expect(load.get_by_text("COMMERCE_METRICS_PORT is not set")).to_be_visible()


async def test_rates_and_quantiles_are_those_between_two_states(console: Console) -> None:
    await console.open("/explore")
    result = await console.page.evaluate(
        """async () => {
          const { between, quantile } = await import("./live/load.js");
          const state = (outcomes, counts, startTime = 1) => (
            { startTime, outcomes, durations: { bounds: [1, 2, 4], counts } });
          const before = { time: 1000, state: state({ OK: 5 }, [5, 0, 0, 0]) };
          const after = { time: 3000, state: state({ OK: 9, NOT_FOUND: 2, INTERNAL: 1 }, [5, 4, 3, 0]) };
          const other = { time: 3000, state: state({ OK: 9 }, [9, 0, 0, 0], 2) };
          return {
            change: between(before, after), first: between(null, after), other: between(before, other),
            none: quantile(0.5, [0, 0], [1]), last: quantile(0.5, [0, 3], [1]),
          };
        }"""
    )
    p99 = result["change"].pop("p99")
    assert result["change"] == {"seconds": 2, "ok": 2, "refused": 1, "failed": 0.5, "p50": 1.875}
    assert 3.9 < p99 < 4
    assert (result["first"], result["other"], result["none"], result["last"]) == (None, None, None, 1)
