"""The commands that Explore writes run as they are, and give what the console shows."""

import asyncio
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from playwright.async_api import expect

from tests.console.conftest import Console

USERS, ORDERS = "commerce.users.v1.UserService", "commerce.orders.v1.OrderService"
BIN = Path(sys.executable).parent
SECONDS = 60
# A quote, a dollar and a line break, which each tool must get as they are.
BIO = 'It\'s $HOME\n`echo` \\ "quoted" 🚀'


async def snippet(console: Console, method: str, tool: str, request: dict[str, object]) -> str:
    """Return the command for a tool, given the method that is called and its request."""
    await console.open(f"/explore/{method}")
    page = console.page
    await page.get_by_role("tab", name="JSON").first.click()
    await page.get_by_label("Request as JSON").fill(json.dumps(request))
    await page.get_by_role("tab", name=tool, exact=True).click()
    text = await page.locator("[data-snippet]:visible").text_content()
    assert text is not None
    return text


async def run(*command: str, **environment: str) -> str:
    """Run a program, and return what it prints."""
    path = f"{BIN}:{os.environ['PATH']}"
    process = await asyncio.create_subprocess_exec(
        *command,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PATH": path, **environment},
    )
    output, errors = await asyncio.wait_for(process.communicate(), SECONDS)
    assert process.returncode == 0, errors.decode()
    return output.decode()


async def created_with(console: Console, tool: str, *program: str) -> None:
    """Create a user with the command for a tool, and check that the service has understood all of it."""
    name = f"made.by.{tool.lower()}"
    user = {"email": f"{name}@example.com", "username": name, "profile": {"bio": BIO}}
    text = await snippet(console, f"{USERS}/CreateUser", tool, {"user": user, "password": "correct horse"})
    await run(*program, text)
    read = await console.call(f"{USERS}/GetUser", {"username": name})
    assert read["user"]["profile"]["bio"] == BIO


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_curl(console: Console) -> None:
    await created_with(console, "curl", "bash", "-euc")


async def test_python(console: Console) -> None:
    await created_with(console, "Python", sys.executable, "-c")


@pytest.mark.skipif(
    shutil.which("grpcurl", path=Path(sys.executable).parent) is None, reason="grpcurl is not installed"
)
async def test_grpcurl(console: Console) -> None:
    await created_with(console, "grpcurl", "bash", "-euc")


@pytest.mark.skipif(not (BIN / "commercectl").exists(), reason="commercectl is not installed")
async def test_commercectl(console: Console) -> None:
    await created_with(console, "commercectl", "bash", "-euc")


async def test_streams(console: Console) -> None:
    await console.create_user("exported.user")
    for tool, program in (("curl", ("bash", "-euc")), ("Python", (sys.executable, "-c"))):
        text = await snippet(console, f"{USERS}/ExportUsers", tool, {"states": ["USER_STATE_ACTIVE"]})
        assert "exported.user" in await run(*program, text)


async def test_credentials_are_read_from_the_environment(console: Console) -> None:
    await console.open("/explore")
    page = console.page
    await page.get_by_role("button", name="No credentials").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("Kind").select_option("key")
    await dialog.get_by_label("Key or token").fill("the-secret-key")
    await dialog.get_by_role("button", name="Use", exact=True).click()
    await expect(page.get_by_role("button", name="API key")).to_be_visible()
    await page.get_by_role("link", name="GetUser").first.click()
    for tool in ("commercectl", "curl", "grpcurl", "Python"):
        await page.get_by_role("tab", name=tool, exact=True).click()
        shown = await page.locator("[data-snippet]:visible").text_content()
        assert shown is not None
        assert "COMMERCE_API_KEY" in shown
        assert "the-secret-key" not in shown
