"""Orders, users and notes in the console: what each state allows, checked first, sent once."""

import asyncio
from pathlib import Path

from playwright.async_api import Browser, Locator, Page, Route, expect

from tests.console.conftest import Console, opened
from tests.http.conftest import Site
from tests.support.policies import guarded_server

ORDERS = "commerce.orders.v1.OrderService"
USERS = "commerce.users.v1.UserService"
HOSTILE = "<img src=x onerror=alert(1)>"


def dialog_button(page: Page, name: str) -> Locator:
    return page.get_by_role("dialog").get_by_role("button", name=name, exact=True)


def action(page: Page, name: str) -> Locator:
    """Return the button of an action in the page, which an open dialog does not have."""
    return page.locator("main").get_by_role("button", name=name, exact=True)


async def order_of(console: Console, number: str) -> dict[str, object]:
    order: dict[str, object] = (await console.call(f"{ORDERS}/GetOrder", {"orderNumber": number}))["order"]
    return order


async def test_an_order_is_placed_and_shipped(console: Console) -> None:
    await console.create_user("shipping")
    page = console.page
    await console.open("/orders")
    await action(page, "New order").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_role("combobox", name="User").fill("shipping")
    await dialog.get_by_label("Product").fill("b3")
    await dialog.get_by_label("Name", exact=True).fill("Bolt")
    await dialog.get_by_label("Quantity").fill("3")
    # As a floating-point number, three times this is 0.30000000000000004.
    await dialog.get_by_label("Unit price").fill("0.10")
    await expect(dialog.get_by_text("Total €0.30")).to_be_visible()
    await dialog_button(page, "Check").click()
    await expect(dialog.get_by_text("A PENDING order of shipping: 1 item, total €0.30")).to_be_visible()
    listed = await console.call(f"{USERS}/GetUser", {"username": "shipping"})
    assert await console.call(f"{ORDERS}/ListOrders", {"userId": listed["user"]["id"]}) == {}
    await dialog_button(page, "Place order").click()
    await expect(page.get_by_role("heading", name="ORD-")).to_be_visible()
    number = (await page.title()).split(" ")[0]
    for name, submit, state in (
        ("Confirm", "Confirm order", "CONFIRMED"),
        ("Process", "Process order", "PROCESSING"),
        ("Ship", "Ship order", "SHIPPED"),
    ):
        await action(page, name).click()
        if name == "Ship":
            await dialog.get_by_label("Tracking number").fill("1Z999")
            await dialog_button(page, "Check").click()
            await dialog.get_by_label("I understand").check()
        await expect(dialog.get_by_text(f"→ {state}")).to_be_visible()
        await dialog_button(page, submit).click()
        await expect(page.locator("h1 .badge")).to_have_text(state)
    timeline = page.get_by_role("region", name="Timeline").get_by_role("listitem")
    await expect(timeline.get_by_text("Order shipped")).to_be_visible()
    await expect(page.get_by_text("Tracking number: 1Z999")).to_be_visible()
    order = await order_of(console, number)
    assert (order["status"], order["etag"]) == ("ORDER_STATUS_SHIPPED", "v4")
    assert order["totalAmount"] == {"currencyCode": "EUR", "nanos": 300_000_000}


async def test_what_cannot_be_undone_is_confirmed_and_what_is_not_possible_is_explained(console: Console) -> None:
    user = await console.create_user("cancelling")
    order = await console.create_order(user["id"])
    page = console.page
    # A link to the dialog of an action.
    await console.open(f"/orders/{order['id']}?do=cancel")
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("Reason").fill("Changed their mind")
    await page.keyboard.press("Enter")
    await expect(dialog.get_by_text("Status: PENDING → CANCELLED")).to_be_visible()
    await dialog_button(page, "Cancel order").click()
    await expect(dialog.get_by_label("I understand")).to_be_focused()
    assert (await order_of(console, order["orderNumber"]))["status"] == "ORDER_STATUS_PENDING"
    await dialog.get_by_label("I understand").check()
    await dialog_button(page, "Cancel order").click()
    await expect(page.locator("h1 .badge")).to_have_text("CANCELLED")
    await expect(action(page, "Tags")).to_be_visible()
    assert await action(page, "Confirm").count() == await action(page, "Cancel order").count() == 0
    await page.get_by_text("Not possible now").click()
    await expect(page.get_by_text("Only PENDING orders can be confirmed. This one is CANCELLED.")).to_be_visible()


async def test_an_order_that_someone_else_has_changed_is_read_again_first(console: Console) -> None:
    user = await console.create_user("stale")
    order = await console.create_order(user["id"])
    page = console.page
    await console.open(f"/orders/{order['orderNumber']}")
    await action(page, "Confirm").click()
    dialog = page.get_by_role("dialog")
    await expect(dialog_button(page, "Confirm order")).to_be_visible()
    await console.call(f"{ORDERS}/AddOrderTags", {"id": order["id"], "tags": ["rush"]})
    await dialog_button(page, "Confirm order").click()
    await expect(dialog.get_by_text("Changed by someone else: reload.")).to_be_visible()
    assert (await order_of(console, order["orderNumber"]))["status"] == "ORDER_STATUS_PENDING"
    await dialog_button(page, "Reload").click()
    await dialog_button(page, "Confirm order").click()
    await expect(page.locator("h1 .badge")).to_have_text("CONFIRMED")
    assert (await order_of(console, order["orderNumber"]))["etag"] == "v3"


async def test_a_request_without_an_answer_is_repeated_with_the_same_id(console: Console) -> None:
    user = await console.create_user("unanswered")
    order = await console.create_order(user["id"])
    page = console.page
    bodies: list[dict[str, object]] = []

    async def lose_the_first_answer(route: Route) -> None:
        body: dict[str, object] = route.request.post_data_json or {}
        if "requestId" not in body:
            await route.continue_()
            return
        bodies.append(body)
        if len(bodies) == 1:
            await route.fetch()
            await route.abort()
        else:
            await route.continue_()

    await page.route("**/ConfirmOrder", lose_the_first_answer)
    await console.open(f"/orders/{order['orderNumber']}")
    await action(page, "Confirm").click()
    await dialog_button(page, "Confirm order").click()
    await expect(page.get_by_text("It is not known whether it happened.")).to_be_visible()
    await dialog_button(page, "Repeat the request").click()
    await expect(page.get_by_role("dialog")).to_have_count(0)
    await expect(page.locator("h1 .badge")).to_have_text("CONFIRMED")
    assert bodies[0] == bodies[1]
    assert (await order_of(console, order["orderNumber"]))["etag"] == "v2"


async def test_an_edit_after_a_reload_keeps_what_someone_else_has_changed(console: Console) -> None:
    user = await console.create_user("both.edit")
    order = await console.create_order(user["id"], externalRef="old")
    page = console.page
    await console.open(f"/orders/{order['orderNumber']}?do=edit")
    dialog = page.get_by_role("dialog")
    await dialog_button(page, "Add entry").click()
    await dialog.get_by_label("Key").fill("gift")
    await dialog.get_by_label("Value").fill("yes")
    await dialog_button(page, "Check").click()
    await expect(dialog_button(page, "Save order")).to_be_visible()
    await console.call(
        f"{ORDERS}/UpdateOrder", {"order": {"id": order["id"], "externalRef": "new"}, "updateMask": "externalRef"}
    )
    await dialog_button(page, "Save order").click()
    await expect(dialog.get_by_text("Changed by someone else: reload.")).to_be_visible()
    await dialog_button(page, "Reload").click()
    await dialog_button(page, "Check").click()
    await dialog_button(page, "Save order").click()
    await expect(page.get_by_role("dialog")).to_have_count(0)
    saved = await order_of(console, order["orderNumber"])
    assert (saved["externalRef"], saved["metadata"]) == ("new", {"gift": "yes"})
    await console.open("/users/both.edit?do=edit")
    await dialog.get_by_label("Bio").fill("Writes")
    await dialog_button(page, "Check").click()
    await expect(dialog_button(page, "Save user")).to_be_visible()
    await console.call(
        f"{USERS}/UpdateUser", {"user": {"id": user["id"], "fullName": "Both"}, "updateMask": "fullName"}
    )
    await dialog_button(page, "Save user").click()
    await dialog_button(page, "Reload").click()
    await dialog_button(page, "Check").click()
    await dialog_button(page, "Save user").click()
    await expect(page.get_by_role("dialog")).to_have_count(0)
    changed = (await console.call(f"{USERS}/GetUser", {"id": user["id"]}))["user"]
    assert (changed["fullName"], changed["profile"]["bio"]) == ("Both", "Writes")


async def test_a_refused_repeat_does_not_settle_what_the_first_request_did(console: Console) -> None:
    user = await console.create_user("unsettled")
    order = await console.create_order(user["id"])
    page = console.page
    info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "OVERLOADED", "domain": "commerce"}
    overloaded = {"code": 8, "message": "the server is busy", "details": [info]}
    sent = 0
    held = asyncio.Event()

    async def lose_and_refuse(route: Route) -> None:
        nonlocal sent
        if "requestId" not in (route.request.post_data_json or {}):
            await route.continue_()
            return
        sent += 1
        if sent == 1:
            await route.fetch()
            await held.wait()
            await route.abort()
        elif sent == 2:
            await route.fulfill(status=429, json=overloaded)
        else:
            await route.continue_()

    await page.route("**/ConfirmOrder", lose_and_refuse)
    await console.open(f"/orders/{order['orderNumber']}")
    await action(page, "Confirm").click()
    await dialog_button(page, "Confirm order").click()
    dialog = page.get_by_role("dialog")
    await expect(dialog.get_by_text("Sending")).to_be_visible()
    # Nothing closes it while the request is on its way: neither Escape nor the button in its corner.
    await page.keyboard.press("Escape")
    await dialog.locator("header").get_by_role("button", name="Close").click()
    await expect(dialog).to_be_visible()
    held.set()
    await expect(dialog.get_by_text("It is not known whether it happened.")).to_be_visible()
    await dialog_button(page, "Repeat the request").click()
    await expect(dialog.get_by_text("the server is busy")).to_be_visible()
    await expect(dialog.get_by_text("It is not known whether it happened.")).to_be_visible()
    await dialog_button(page, "Repeat the request").click()
    await expect(page.get_by_role("dialog")).to_have_count(0)
    await expect(page.locator("h1 .badge")).to_have_text("CONFIRMED")
    assert (sent, (await order_of(console, order["orderNumber"]))["etag"]) == (3, "v2")


async def test_a_change_before_the_order_is_followed_is_shown(console: Console) -> None:
    user = await console.create_user("between")
    order = await console.create_order(user["id"])
    page = console.page

    async def change_first(route: Route) -> None:
        await console.call(f"{ORDERS}/AddOrderTags", {"id": order["id"], "tags": ["early"]})
        await route.continue_()

    await page.route("**/WatchOrders", change_first)
    await console.open(f"/orders/{order['orderNumber']}")
    await expect(page.get_by_role("region", name="Details").get_by_text("early")).to_be_visible()


async def test_an_order_in_a_hidden_tab_gives_its_connection_back(console: Console) -> None:
    user = await console.create_user("hidden.tab")
    order = await console.create_order(user["id"])
    page = console.page
    await page.clock.install()
    await console.open(f"/orders/{order['orderNumber']}")
    await expect(page.get_by_text("updates by itself")).to_be_visible()
    async with page.expect_event("requestfailed", lambda request: request.url.endswith("/WatchOrders")):
        await page.evaluate(SET_HIDDEN, "yes")
        await page.clock.fast_forward(10_000)
    await console.call(f"{ORDERS}/AddOrderTags", {"id": order["id"], "tags": ["meanwhile"]})
    async with page.expect_request("**/WatchOrders"):
        await page.evaluate(SET_HIDDEN, "")
    await expect(page.get_by_role("region", name="Details").get_by_text("meanwhile")).to_be_visible()


SET_HIDDEN = """(hidden) => {
  Object.defineProperty(document, "hidden", { value: Boolean(hidden), configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


async def test_a_failed_reading_after_an_unknown_outcome_is_reported(console: Console) -> None:
    user = await console.create_user("unread")
    page = console.page
    await console.open("/users/unread")
    await page.get_by_role("region", name="Details").wait_for()
    await page.route("**/DeactivateUser", lose_what_is_sent)
    await page.get_by_text("More", exact=True).click()
    await action(page, "Deactivate").click()
    await dialog_button(page, "Deactivate").click()
    await expect(page.get_by_text("It is not known whether it happened.")).to_be_visible()
    await page.route("**/GetUser", lambda route: route.abort())
    await dialog_button(page, "Close").last.click()
    await expect(page.get_by_role("region", name="Messages").get_by_text("cannot be reached")).to_be_visible()
    assert (await console.call(f"{USERS}/GetUser", {"id": user["id"]}))["user"]["state"] == "USER_STATE_ACTIVE"


async def lose_what_is_sent(route: Route) -> None:
    if "requestId" in (route.request.post_data_json or {}):
        await route.abort()
    else:
        await route.continue_()


async def test_what_is_wrong_is_shown_at_its_field(console: Console) -> None:
    await console.create_user("violating")
    page = console.page
    await console.open("/users/violating?do=create-order")
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("Name", exact=True).fill("Anvil")
    await dialog.get_by_label("Unit price").fill("10.505")
    await dialog_button(page, "Check").click()
    product = dialog.get_by_label("Product")
    await expect(product).to_be_focused()
    await expect(product).to_have_accessible_description("must be at least 1 characters")
    await product.fill("a1")
    await dialog_button(page, "Check").click()
    await expect(dialog.get_by_label("Unit price")).to_have_accessible_description(
        "must have at most 2 decimals for EUR"
    )
    await dialog.get_by_label("Unit price").fill("a lot")
    await dialog_button(page, "Check").click()
    await expect(dialog.get_by_label("Unit price")).to_have_accessible_description("must be an amount such as 10.50")
    # A check that is lost has written nothing.
    await dialog.get_by_label("Unit price").fill("10.50")
    await page.context.set_offline(True)
    await dialog_button(page, "Check").click()
    await expect(dialog.get_by_text("This device is offline.")).to_be_visible()
    await expect(dialog.get_by_text("Nothing was written.")).to_be_visible()


async def test_a_caller_with_few_rights_is_told_which_one_is_missing(
    browser: Browser, postgres_url: str, template_url: str, tmp_path: Path
) -> None:
    policy = {"key:all": ["users.write", "orders.write"], "key:reader": ["orders.read"]}
    async with guarded_server(postgres_url, template_url, tmp_path, policy, http_port=0, console=True) as guarded:
        clients = await guarded.clients_of("all")
        order = await clients.create_order((await clients.create_user()).id)
        context, console = await opened(browser, Site(guarded.server, None, clients))  # type: ignore[arg-type]
        page = console.page
        await console.open(f"/orders/{order.id}")
        await expect(page.get_by_text("UNAUTHENTICATED_CALLER")).to_be_visible()
        await page.get_by_role("button", name="No credentials").click()
        await page.get_by_label("Kind").select_option("key")
        await page.get_by_label("Key or token").fill(guarded.key_of("reader"))
        await page.get_by_label("Keep them in this tab").check()
        await page.get_by_role("button", name="Use", exact=True).click()
        await action(page, "Confirm").click()
        await expect(page.get_by_role("dialog").get_by_text("PERMISSION_MISSING")).to_be_visible()
        await expect(page.get_by_role("dialog").get_by_text("orders.process")).to_be_visible()
        await dialog_button(page, "Close").last.click()
        # What may be read is shown nevertheless.
        await expect(page.get_by_role("region", name="Timeline").get_by_text("Order placed")).to_be_visible()
        await expect(page.get_by_role("region", name="Notes").get_by_text("PERMISSION_MISSING")).to_be_visible()
        await console.open("/users")
        await expect(page.get_by_text("PERMISSION_MISSING")).to_be_visible()
        await context.close()
        assert console.problems == []


async def test_filters_and_pages_are_in_the_address(console: Console) -> None:
    user = await console.create_user("many.orders")
    orders = await asyncio.gather(*(console.create_order(user["id"]) for _ in range(27)))
    await console.call(f"{ORDERS}/AddOrderTags", {"id": orders[0]["id"], "tags": ["Gift Wrap"]})
    page = console.page
    rows = page.locator("tbody tr")
    await console.open("/orders")
    await page.get_by_role("textbox", name="User").fill("many.orders")
    await page.get_by_label("PENDING").check()
    await expect(rows).to_have_count(25)
    await expect(rows.first.get_by_role("link", name="many.orders")).to_be_visible()
    await page.get_by_role("button", name="Next page").click()
    await expect(rows).to_have_count(2)
    await page.get_by_role("button", name="Count all").click()
    await expect(page.get_by_text("27 in all")).to_be_visible()
    await page.reload()
    await expect(rows).to_have_count(2)
    await page.get_by_role("textbox", name="Tags").fill("gift wrap")
    await page.keyboard.press("Enter")
    await expect(rows).to_have_count(1)
    await page.get_by_label("CANCELLED").check()
    await page.get_by_label("PENDING").uncheck()
    await expect(page.locator("main").get_by_text("No order matches")).to_be_visible()
    assert "status=CANCELLED" in page.url
    # Found by its number, however it is written.
    await page.get_by_role("searchbox").fill(f" ord {int(orders[0]['orderNumber'][4:])}")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name=orders[0]["orderNumber"])).to_be_visible()


async def test_numbers_of_orders_have_many_spellings(console: Console) -> None:
    await console.open("/notes")
    keys = await console.page.evaluate(
        """async (texts) => {
          const { orderKey } = await import("./resources/order_key.js");
          return texts.map(orderKey);
        }""",
        ["42", "#42", "ord-42", "ORD 00000042", "order:42", "\uff11\uff12", "123456789", "", "x42", "42x", "-1"],
    )
    numbers = [key and key["orderNumber"] for key in keys]
    assert numbers[:7] == [*["ORD-00000042"] * 5, "ORD-00000012", "ORD-123456789"]
    assert numbers[7:10] == [None, None, None]


async def test_a_user_gets_credit_is_deactivated_and_is_erased(console: Console) -> None:
    page = console.page
    await console.open("/users")
    await action(page, "New user").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("E-mail").fill("erased@example.com")
    await dialog.get_by_label("Username").fill("to.be.erased")
    await dialog.get_by_label("Full name").fill("Zuse Quux")
    await dialog.get_by_label("Password").fill("correct horse")
    await dialog_button(page, "Check").click()
    await dialog_button(page, "Create user").click()
    await expect(page.get_by_role("heading", name="to.be.erased")).to_be_visible()
    await action(page, "Grant credit").click()
    await dialog.get_by_label("Amount").fill("25.50")
    await dialog_button(page, "Check").click()
    await expect(dialog.get_by_text("Available credit of to.be.erased: €0.00 → €25.50")).to_be_visible()
    await dialog_button(page, "Grant credit").click()
    await expect(page.get_by_role("region", name="Ledger entries").get_by_text("Granted")).to_be_visible()
    await page.get_by_text("More", exact=True).click()
    await action(page, "Deactivate").click()
    await dialog_button(page, "Deactivate").click()
    await expect(page.locator("h1 .badge")).to_have_text("INACTIVE")
    await page.get_by_text("Not possible now").click()
    await expect(page.get_by_text("Only ACTIVE users can place orders. This one is INACTIVE.")).to_be_visible()
    await page.get_by_text("More", exact=True).click()
    await action(page, "Purge").click()
    await dialog_button(page, "Check").click()
    await expect(dialog.get_by_text("USER_IN_USE").first).to_be_visible()
    await dialog.get_by_label("Even with open orders").check()
    await dialog_button(page, "Check").click()
    await dialog.get_by_label("to confirm").fill("to.be.erased")
    await dialog_button(page, "Purge").click()
    await expect(page.get_by_role("heading", name="Users")).to_be_visible()
    await page.get_by_role("searchbox").fill("quux")
    await page.keyboard.press("Enter")
    await expect(page.locator("main").get_by_text("No user matches")).to_be_visible()


async def test_hostile_texts_stay_texts(console: Console) -> None:
    user = await console.create_user("hostile", fullName=HOSTILE, profile={"bio": HOSTILE})
    item = {"productId": HOSTILE, "name": HOSTILE, "quantity": 1, "unitPrice": {"currencyCode": "EUR", "units": "1"}}
    order = await console.create_order(user["id"], items=[item], metadata={HOSTILE: HOSTILE}, externalRef=HOSTILE)
    await console.call(f"{ORDERS}/AddOrderTags", {"id": order["id"], "tags": [HOSTILE]})
    page = console.page
    await console.open(f"/orders/{order['id']}")
    await action(page, "Add note").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_role("combobox", name="Author").fill("hostile")
    await dialog.get_by_label("Note").fill(f"wombat {HOSTILE}")
    await dialog_button(page, "Check").click()
    await dialog_button(page, "Save draft").click()
    notes = page.get_by_role("region", name="Notes")
    await expect(notes.get_by_text(HOSTILE)).to_be_visible()
    await notes.get_by_role("button", name="Publish").click()
    await dialog.get_by_label("I understand").check()
    await dialog_button(page, "Publish note").click()
    # Not a part of a text: the buttons of a draft read PublishEditDelete.
    await expect(notes.get_by_text("PUBLISHED", exact=True)).to_be_visible()
    await console.open("/notes?q=wombat")
    await expect(page.locator("main")).to_contain_text(HOSTILE)
    await expect(page.locator("mark")).to_have_text("wombat")
    for view in (f"/users/{user['id']}", "/orders?user=hostile", "/live?user=hostile&start=earliest"):
        await console.open(view)
        await expect(page.locator("main").get_by_text("hostile").first, view).to_be_visible()
        assert await page.locator("main img").count() == 0


async def test_no_barriers(console: Console) -> None:
    user = await console.create_user("barriers", superuser=True)
    order = await console.create_order(user["id"], metadata={"channel": "web"})
    await console.call(f"{ORDERS}/AddOrderTags", {"id": order["id"], "tags": ["gift"]})
    note = {"orderId": order["id"], "authorId": user["id"], "body": "Call back"}
    await console.call(f"{ORDERS}/CreateOrderNote", {"note": note})
    await console.call(f"{USERS}/GrantCredit", {"userId": user["id"], "amount": {"currencyCode": "EUR", "units": "5"}})
    page = console.page
    views = (
        f"/orders?user={user['id']}",
        f"/orders/{order['id']}",
        f"/orders/{order['id']}?do=edit",
        f"/users/{user['id']}",
        "/users?q=barriers",
        f"/notes?author={user['id']}&drafts=yes",
        f"/live?user={user['id']}&start=earliest",
    )
    await console.open()
    for view in views:
        await console.go(view)
        await expect(page.locator(".loading")).to_have_count(0)
        assert await console.barriers_in_every_form() == [], view
