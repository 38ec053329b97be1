"""The frame of the console: its size, navigation, keyboard, theme and credentials."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser, expect

from tests.console.conftest import Console, opened
from tests.http.conftest import Site, running_site
from tests.support.databases import cloned
from tests.support.identities import write_keys
from tests.support.policies import policy_of

# As docs/console.md says.
MAX_FIRST_VIEW_BYTES = 100_000


async def test_the_first_view_is_small_and_needs_nothing_from_elsewhere(console: Console) -> None:
    await console.open("/explore")
    entries: list[list[object]] = await console.page.evaluate(
        "['navigation', 'resource'].flatMap((type) => performance.getEntriesByType(type))"
        ".map(({name, transferSize}) => [name, transferSize])"
    )
    addresses = [str(address) for address, _ in entries]
    assert all(address.startswith(console.url) for address in addresses)
    assert f"{console.url}schema.json" in addresses
    assert 10_000 < sum(int(str(size)) for _, size in entries) <= MAX_FIRST_VIEW_BYTES


async def test_it_can_be_used_with_the_keyboard(console: Console) -> None:
    await console.open("/explore")
    page = console.page
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.locator("main")).to_be_focused()
    assert page.url.endswith("#/explore")
    await page.get_by_label("Search methods").fill("getuser")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    heading = page.get_by_role("heading", level=1)
    await expect(heading).to_have_text("GetUser")
    await expect(heading).to_be_focused()
    assert await page.title() == "GetUser · Console"
    await page.get_by_label("id", exact=False).last.fill("01935f6e-1c2a-7b3d-8e4f-5a6b7c8d9e0f")
    await page.keyboard.press("Control+Enter")
    await expect(page.locator(".response-card")).to_contain_text("USER_NOT_FOUND")
    status = page.locator("[role=status].visually-hidden")
    await expect(status).to_have_text("GetUser: NOT_FOUND USER_NOT_FOUND")
    # The search tells how much it has found half a second later, and not in another view.
    await asyncio.sleep(0.7)
    await expect(status).to_have_text("GetUser: NOT_FOUND USER_NOT_FOUND")
    await page.get_by_role("tab", name="Form").focus()
    await page.keyboard.press("ArrowRight")
    await expect(page.get_by_role("tab", name="JSON").first).to_be_focused()
    await expect(page.get_by_label("Request as JSON")).to_be_visible()


async def test_the_theme_follows_the_system_until_one_is_chosen(console: Console) -> None:
    page = console.page
    ground = "getComputedStyle(document.body).backgroundColor"
    await page.emulate_media(color_scheme="light")
    await console.open("/explore")
    light = await page.evaluate(ground)
    await page.emulate_media(color_scheme="dark")
    dark = await page.evaluate(ground)
    assert light != dark
    await page.get_by_role("button", name="System theme").click()
    assert await page.evaluate(ground) == light
    await page.reload()
    await expect(page.get_by_role("button", name="Light theme")).to_be_visible()
    assert await page.evaluate(ground) == light


async def test_an_address_without_a_view_says_so(console: Console) -> None:
    for view, text in (
        ("/nothing", "There is no such page"),
        ("/explore/no.Service/Method", "There is no such method"),
    ):
        await console.open(view)
        await expect(console.page.get_by_role("heading", level=1)).to_have_text(text)


async def test_a_server_that_is_gone_is_told(console: Console) -> None:
    await console.open("/explore/commerce.users.v1.UserService/DeactivateUser")
    page = console.page
    await page.get_by_label("id string").first.fill("01935f6e-1c2a-7b3d-8e4f-5a6b7c8d9e0f")
    await page.context.set_offline(True)
    await page.get_by_role("button", name="Call", exact=True).click()
    await expect(page.locator(".response-card")).to_contain_text("This device is offline.")
    await expect(page.locator(".response-card")).to_contain_text("It is not known whether something was written.")


@pytest.fixture(scope="module")
async def guarded(
    postgres_url: str, template_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[Site, str]]:
    """A server that knows its callers by API keys, and the key of one that may read users."""
    folder = tmp_path_factory.mktemp("keys")
    keys, policy = folder / "keys.toml", folder / "policy.toml"
    (key,) = write_keys(keys, "reader")
    policy.write_text(policy_of({"key:reader": ["users.read"]}))
    async with (
        cloned(postgres_url, template_url) as url,
        running_site(url, console=True, api_keys_file=keys, policy_file=policy) as site,
    ):
        yield site, key


async def test_the_service_decides_who_may_call(browser: Browser, guarded: tuple[Site, str]) -> None:
    site, key = guarded
    context, console = await opened(browser, site)
    page = console.page
    response = page.locator(".response-card")
    await console.open("/explore/commerce.users.v1.UserService/ListUsers")
    await page.get_by_role("button", name="Call", exact=True).click()
    await expect(response).to_contain_text("UNAUTHENTICATED_CALLER")
    await page.get_by_role("button", name="No credentials").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("Kind").select_option("key")
    await dialog.get_by_role("button", name="Use", exact=True).click()
    await expect(dialog.get_by_label("Key or token")).to_have_accessible_description("Enter it, or choose None.")
    assert await console.barriers() == []
    await dialog.get_by_label("Key or token").fill(key)
    await dialog.get_by_role("button", name="Use", exact=True).click()
    await page.get_by_role("button", name="Call", exact=True).click()
    await expect(response).to_contain_text("OK")
    everything = "JSON.stringify([{...localStorage}, {...sessionStorage}, location.href, history.state])"
    assert key not in await page.evaluate(everything)
    # What it may not do.
    await page.get_by_role("link", name="ListOrders").first.click()
    await page.get_by_role("button", name="Call", exact=True).click()
    await expect(response).to_contain_text("PERMISSION_MISSING")
    # In memory, it does not outlive the page; kept for the tab, it does, and then is forgotten.
    await page.reload()
    await page.get_by_role("button", name="No credentials").click()
    await dialog.get_by_label("Kind").select_option("key")
    await dialog.get_by_label("Key or token").fill(key)
    await dialog.get_by_label("Keep them in this tab").check()
    await dialog.get_by_role("button", name="Use", exact=True).click()
    await page.reload()
    await page.get_by_role("button", name="API key").click()
    assert key not in await page.evaluate("JSON.stringify([{...localStorage}, location.href])")
    await dialog.get_by_role("button", name="Forget them").click()
    await expect(page.get_by_role("button", name="No credentials")).to_be_visible()
    assert await page.evaluate("sessionStorage.length") == 0
    assert console.problems == []
    await context.close()
