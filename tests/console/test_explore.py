"""Explore, as a person uses it: find a method, write its request, call it, read what comes back."""

import json
import re
from typing import Any

from playwright.async_api import expect

from tests.console.conftest import PHONE, Console

USERS, ORDERS = "commerce.users.v1.UserService", "commerce.orders.v1.OrderService"
HOSTILE = "<img src=x onerror=\"document.title='owned'\"></code><script>document.title='owned'</script>"


async def request_json(console: Console) -> Any:
    """Return the request that is written, which its JSON shows."""
    await console.page.get_by_role("tab", name="JSON").first.click()
    value = json.loads(await console.page.get_by_label("Request as JSON").input_value())
    await console.page.get_by_role("tab", name="Form").click()
    return value


async def test_methods_are_found_by_what_they_are_about(console: Console) -> None:
    await console.open("/explore")
    search = console.page.get_by_label("Search methods")
    cards = console.page.locator(".method-card")
    await search.fill("tracking_number")
    await expect(cards.first).to_contain_text("ShipOrder")
    await search.fill("ETAG_MISMATCH deleteuser")
    await expect(cards.first).to_contain_text("DeleteUser")
    assert "q=ETAG_MISMATCH+deleteuser" in console.page.url
    await search.fill("no such thing")
    await expect(console.page.get_by_text("No method fits")).to_be_visible()
    await search.fill("getorder")
    await cards.first.click()
    await expect(console.page.get_by_role("heading", name="GetOrder", exact=True)).to_be_focused()
    await expect(console.page.locator(".method-doc")).to_contain_text("Returns one order.")


async def test_an_order_is_placed_with_the_form(console: Console) -> None:
    user = await console.create_user("form.user")
    await console.open(f"/explore/{ORDERS}/CreateOrder")
    page = console.page
    await page.get_by_label("user_id").fill(user["id"])
    await page.get_by_role("group", name="items").get_by_role("button", name="Add element").click()
    await page.get_by_label("product_id").fill("rocket-7")
    await page.get_by_label("name string").fill("Rocket")
    await page.get_by_label("quantity").fill("3")
    await page.get_by_label("unit_price").fill("0.10")
    await page.get_by_label("currency").fill("eur")
    await page.get_by_role("group", name="metadata").get_by_role("button", name="Add entry").click()
    await page.get_by_label("metadata: key 1").fill("channel")
    await page.get_by_label("metadata: value 1").fill("web")
    await page.get_by_label("validate_only").check()
    await page.get_by_label("validate_only").uncheck()
    await page.get_by_role("button", name="New").click()
    request = await request_json(console)
    request_id = request.pop("requestId")
    price = {"currencyCode": "EUR", "units": "0", "nanos": 100_000_000}
    item = {"productId": "rocket-7", "name": "Rocket", "quantity": 3, "unitPrice": price}
    assert request == {"order": {"userId": user["id"], "items": [item], "metadata": {"channel": "web"}}}
    assert len(request_id) == 36
    await page.get_by_role("button", name="Call", exact=True).click()
    response = page.locator(".response-card")
    await expect(response).to_contain_text("OK")
    await expect(response.locator(".json-tree")).to_contain_text("€0.30")
    listed = await console.call(f"{ORDERS}/ListOrders", {"userId": user["id"]})
    assert [order["metadata"] for order in listed["orders"]] == [{"channel": "web"}]


async def test_a_form_asks_only_for_what_a_caller_can_set(console: Console) -> None:
    page = console.page
    names = page.locator(".request-form .field-name")
    await console.open(f"/explore/{USERS}/CreateUser")
    # Neither the id and the etag of the new user, nor its state and times.
    settable = ["email", "username", "full_name", "profile", "superuser"]
    await expect(names).to_have_text(["user", *settable, "password", "request_id", "validate_only", "welcome_credit"])
    await console.open(f"/explore/{ORDERS}/UpdateOrder")
    await page.get_by_role("group", name="items").get_by_role("button", name="Add element").click()
    # An update cannot give an order to another user. The ids and subtotals of the items are the server's, too.
    items = ["items", "product_id", "name", "quantity", "unit_price"]
    await expect(names).to_have_text(
        ["order", "id", *items, "external_ref", "metadata", "etag", "update_mask", "request_id", "validate_only"]
    )
    await console.open(f"/explore/{USERS}/UpdateUser")
    await expect(names.get_by_text("etag")).to_be_visible()
    required = page.locator(".request-form label", has=page.get_by_text("required", exact=True))
    await expect(required.locator(".field-name")).to_have_text(["id"])


async def test_rules_are_checked_before_a_request_is_sent(console: Console) -> None:
    sent: list[str] = []
    console.page.on("request", lambda request: sent.append(request.url))
    await console.open(f"/explore/{USERS}/CreateUser")
    page = console.page
    await page.get_by_label("email").fill("nobody")
    await page.get_by_label("password").fill("short")
    await page.get_by_role("button", name="Call", exact=True).click()
    await expect(page.get_by_label("email")).to_be_focused()
    await expect(page.get_by_label("email")).to_have_accessible_description(re.compile("must be an e-mail address"))
    alert = page.get_by_role("alert").filter(has_text="must be corrected")
    await expect(alert).to_contain_text("user.email must be an e-mail address")
    await expect(alert).to_contain_text("password must have at least 8 characters")
    assert not [url for url in sent if url.endswith("/CreateUser")]


async def test_what_the_service_refuses_is_explained_and_shown_at_its_field(console: Console) -> None:
    await console.create_user("taken.name")
    await console.open(f"/explore/{USERS}/CreateUser")
    page = console.page
    await page.get_by_label("email").fill("taken.name@example.com")
    await page.get_by_label("username").fill("other.name")
    await page.get_by_label("password").fill("correct horse")
    await page.get_by_role("button", name="Call", exact=True).click()
    response = page.locator(".response-card")
    await expect(response).to_contain_text("ALREADY_EXISTS")
    await expect(response).to_contain_text(
        "The email address or username belongs to another user, possibly a deleted one."
    )
    await expect(response).to_contain_text("Nothing was written.")
    await response.get_by_text("The status as it came").click()
    await expect(response.locator("details.more")).to_contain_text("google.rpc.ErrorInfo")
    # A rule that only the service knows.
    await console.open(f"/explore/{ORDERS}/CreateOrder")
    user = await console.create_user("moneyless.user")
    order = {
        "userId": user["id"],
        "items": [{"productId": "p", "name": "P", "quantity": 1, "unitPrice": {"currencyCode": "JPY", "nanos": 1}}],
    }
    await page.get_by_role("tab", name="JSON").first.click()
    await page.get_by_label("Request as JSON").fill(json.dumps({"order": order}))
    await page.get_by_role("tab", name="Form").click()
    await page.get_by_role("button", name="Call", exact=True).click()
    await expect(page.locator(".response-card")).to_contain_text("TOO_MANY_DECIMALS")
    await expect(page.get_by_label("unit_price")).to_have_attribute("aria-invalid", "true")


async def test_json_and_form_follow_each_other(console: Console) -> None:
    await console.open(f"/explore/{ORDERS}/ListOrders")
    page = console.page
    editor = page.get_by_label("Request as JSON")
    await page.get_by_role("tab", name="JSON").first.click()
    await editor.fill(
        '{"statuses": ["ORDER_STATUS_SHIPPED"], "pageSize": 7, "createTime": {"startTime": "2026-01-31T12:00:00.5Z"}}'
    )
    await page.get_by_role("tab", name="Form").click()
    await expect(page.get_by_label("ORDER_STATUS_SHIPPED")).to_be_checked()
    await expect(page.get_by_label("page_size")).to_have_value("7")
    # Paris is an hour ahead of UTC.
    await expect(page.get_by_label("start_time")).to_have_value("2026-01-31T13:00")
    await page.get_by_label("ORDER_STATUS_PENDING").check()
    assert await request_json(console) == {
        "statuses": ["ORDER_STATUS_PENDING", "ORDER_STATUS_SHIPPED"],
        "pageSize": 7,
        "createTime": {"startTime": "2026-01-31T12:00:00.5Z"},
    }
    await page.get_by_role("tab", name="JSON").first.click()
    await editor.fill('{"pageSize": 7')
    await expect(page.get_by_role("alert").filter(has_text="This is not JSON")).to_be_visible()
    await page.get_by_role("button", name="Call", exact=True).click()
    await expect(editor).to_be_focused()
    await editor.fill('{"pagesize": 7}')
    await page.get_by_role("button", name="Call", exact=True).click()
    await expect(page.get_by_role("alert").filter(has_text="there is no field of this name")).to_be_visible()


async def test_a_stream_is_shown_as_it_comes_until_it_is_stopped(console: Console) -> None:
    user = await console.create_user("watched.user")
    await console.open(f"/explore/{ORDERS}/WatchOrders")
    page = console.page
    await page.get_by_role("button", name="Call", exact=True).click()
    response = page.locator(".response-card")
    await expect(response.locator(".badge").first).to_have_text("open")
    order = await console.create_order(user["id"])
    item = response.locator(".stream li").filter(has_text=order["id"])
    await item.locator("summary").click()
    await expect(item.locator(".json-tree")).to_contain_text("ORDER_EVENT_TYPE_CREATED")
    await response.get_by_role("button", name="Stop").click()
    await expect(response.locator(".badge").first).to_contain_text("stopped after")
    # An export ends by itself.
    await console.open(f"/explore/{USERS}/ExportUsers")
    await page.get_by_role("button", name="Call", exact=True).click()
    await expect(response.locator(".badge").first).to_contain_text("ended after")
    await response.locator(".stream summary").first.click()
    await expect(response.locator(".json-tree")).to_contain_text("watched.user")


async def test_calls_are_remembered_without_passwords(console: Console) -> None:
    await console.open(f"/explore/{USERS}/VerifyPassword")
    page = console.page
    await page.get_by_label("login").select_option("username")
    await page.get_by_label("username").fill("nobody")
    await page.get_by_label("password").fill("secret words")
    await page.get_by_role("button", name="Call", exact=True).click()
    await expect(page.locator(".response-card")).to_contain_text("INVALID_CREDENTIALS")
    stored = await page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, location.href])")
    assert "nobody" in stored
    assert "secret words" not in stored
    await console.open("/explore/history")
    await page.get_by_role("link", name="VerifyPassword").click()
    await expect(page.get_by_label("username")).to_have_value("nobody")
    await expect(page.get_by_label("password")).to_have_value("")
    await console.open("/explore/history")
    await page.get_by_role("button", name="Clear").click()
    await page.get_by_role("dialog").get_by_role("button", name="Clear").click()
    await expect(page.get_by_text("No calls yet")).to_be_visible()


async def test_texts_of_the_service_never_become_html(console: Console) -> None:
    user = await console.create_user("hostile.user", fullName=HOSTILE, profile={"bio": HOSTILE})
    order = await console.create_order(user["id"], externalRef=HOSTILE[:100], metadata={"<b>key": HOSTILE})
    note = {"orderId": order["id"], "authorId": user["id"], "body": HOSTILE}
    await console.call(f"{ORDERS}/CreateOrderNote", {"note": note})
    page = console.page
    for method, request in (
        (f"{USERS}/GetUser", {"id": user["id"]}),
        (f"{ORDERS}/GetOrder", {"id": order["id"]}),
        (f"{ORDERS}/ListOrderNotes", {"orderId": order["id"], "includeDrafts": True}),
    ):
        await console.open(f"/explore/{method}")
        await page.get_by_role("tab", name="JSON").first.click()
        await page.get_by_label("Request as JSON").fill(json.dumps(request))
        await page.get_by_role("button", name="Call", exact=True).click()
        await expect(page.locator(".response-card")).to_contain_text("<img src=x")
        assert await page.locator("main img, main script").count() == 0
        assert "owned" not in await page.title()
    await page.get_by_role("tab", name="JSON").first.click()
    await page.get_by_label("Request as JSON").fill(json.dumps({HOSTILE: 1}))
    await page.get_by_role("button", name="Call", exact=True).click()
    await expect(page.get_by_role("alert").filter(has_text="<img src=x")).to_be_visible()
    assert await page.locator("main img, main script").count() == 0


async def test_on_a_phone_the_response_comes_into_view(console: Console) -> None:
    width, height = PHONE
    await console.page.set_viewport_size({"width": width, "height": height})
    await console.open(f"/explore/{USERS}/ListUsers")
    response = console.page.locator(".response-card")
    await expect(response).not_to_be_in_viewport()
    await console.page.get_by_role("button", name="Call", exact=True).click()
    await expect(response.get_by_text("OK")).to_be_in_viewport()


async def test_no_barriers(console: Console) -> None:
    user = await console.create_user("accessible.user")
    page = console.page
    await console.open("/explore/history")
    for view in (
        # All methods would only repeat what these few have.
        "/explore?q=credit",
        f"/explore/{ORDERS}/CreateOrder",
        f"/explore/{USERS}/UpdateUser",
        "/explore/history",
    ):
        await console.go(view)
        if view.endswith("CreateOrder"):
            await page.get_by_role("button", name="Example").click()
            await page.get_by_label("user_id").fill(user["id"])
            await page.get_by_role("button", name="Call", exact=True).click()
            await expect(page.locator(".response-card")).to_contain_text("OK")
        if view.endswith("UpdateUser"):
            await page.get_by_role("button", name="Call", exact=True).click()
            await expect(page.locator(".response-card")).to_contain_text("INVALID_ARGUMENT")
        assert await console.barriers_in_every_form() == [], view
