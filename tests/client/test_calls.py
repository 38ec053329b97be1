"""Calls of both clients to a real server."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from commerce.client import Money, Outcome, derive_request_id, to_datetime
from commerce.client.enums import OrderStatus
from commerce.client.errors import (
    EtagMismatch,
    IllegalTransition,
    InsufficientCredit,
    InvalidField,
    OrderNotFound,
    RequestIdReused,
    UserAlreadyExists,
    UserNotFound,
)
from commerce.client.generated import methods
from commerce.users.v1.user_service_pb2 import CreateUserRequest, GetUserRequest, WatchUsersRequest

from tests.support.both_clients import ITEM, BothClients, Kind, both_clients
from tests.support.clients import new_user
from tests.support.logs import Log
from tests.support.passwords import PASSWORD
from tests.support.servers import running_server
from tests.support.waiting import eventually


async def test_an_order_is_placed_paid_and_confirmed(both: BothClients) -> None:
    user = await both.create_user(welcome_credit=Money("20", "EUR"))
    order = await both.create_order(UUID(user.id), pay_with_credit=True, metadata={"source": "test"})
    assert Money.from_message(order.total_amount) == Money("10.50", "EUR")
    assert order.status == OrderStatus.PENDING
    confirmed = await both.call(lambda client: client.orders.confirm(order.id, etag=order.etag))
    assert OrderStatus(confirmed.status) is OrderStatus.CONFIRMED
    (balance,) = await both.call(lambda client: client.users.get_credit_balance(user_id=user.id))
    assert Money.from_message(balance.available) == Money("9.5", "EUR")


async def test_a_failure_raises_the_class_of_its_reason(both: BothClients) -> None:
    user = await both.create_user()
    with pytest.raises(InsufficientCredit, match=r"INSUFFICIENT_CREDIT: .*; nothing was written; x-request-id") as poor:
        await both.create_order(user.id, pay_with_credit=True)
    assert poor.value.outcome is Outcome.NOT_WRITTEN
    with pytest.raises(UserAlreadyExists) as taken:
        await both.create_user(username=user.username)
    assert taken.value.field == "username"
    order = await both.create_order(user.id)
    with pytest.raises(IllegalTransition) as illegal:
        await both.call(lambda client: client.orders.ship(order.id, tracking_number="T1"))
    assert (illegal.value.state, illegal.value.allowed) == ("PENDING", ("CONFIRMED", "CANCELLED"))
    with pytest.raises(InvalidField) as invalid:
        await both.call(lambda client: client.orders.create(user_id=user.id, items=[{**ITEM, "quantity": 0}]))
    assert [violation.field for violation in invalid.value.violations] == ["order.items[0].quantity"]
    with pytest.raises(UserNotFound) as missing:
        await both.call(lambda client: client.users.get(username="nobody-has-this"))
    assert (missing.value.resource, missing.value.failure.attempts) == ("nobody-has-this", 1)


async def test_a_message_that_was_read_is_updated_only_if_it_has_not_changed_since(both: BothClients) -> None:
    user = await both.create_user(full_name="Ada", profile={"bio": "long", "avatar_url": "https://example.com/a.png"})
    changed = await both.call(lambda client: client.users.update(user, full_name="Ada L", profile={"bio": ""}))
    assert (changed.full_name, changed.profile.bio) == ("Ada L", "")
    assert changed.profile.avatar_url == "https://example.com/a.png"
    with pytest.raises(EtagMismatch):
        await both.call(lambda client: client.users.update(user, full_name="Ada B"))
    # By its id, without a condition.
    assert (await both.call(lambda client: client.users.update(user.id, full_name="Ada B"))).full_name == "Ada B"


async def test_resources_are_created_from_messages_too(both: BothClients) -> None:
    message = new_user()
    user = await both.call(lambda client: client.users.create(message, full_name="Grace", password=PASSWORD))
    assert (user.email, user.full_name) == (message.email, "Grace")
    order = await both.create_order(user.id)
    note = {"order_id": order.id, "author_id": user.id, "body": "hello"}
    written = await both.call(lambda client: client.orders.create_note(**note))
    assert await both.call(lambda client: client.orders.delete_note(written.id)) is None


async def test_a_dry_run_writes_nothing(both: BothClients) -> None:
    name = f"u{uuid4().hex[:20]}"
    tried = await both.create_user(email=f"{name}@example.com", username=name, validate_only=True)
    assert tried.username == name
    with pytest.raises(UserNotFound):
        await both.call(lambda client: client.users.get(username=name))


async def test_a_request_id_that_is_found_again_repeats_a_call_without_a_second_effect(both: BothClients) -> None:
    user = await both.create_user()
    again = {"request_id": derive_request_id("test", user.id)}
    first, second = await both.create_order(user.id, **again), await both.create_order(user.id, **again)
    assert first == second
    assert len(await both.items(lambda client: client.orders.list(user_id=user.id))) == 1
    with pytest.raises(RequestIdReused):
        await both.create_order(user.id, external_ref="other", **again)


async def test_each_mutation_has_a_request_id_of_its_own(both: BothClients) -> None:
    user = await both.create_user()
    assert (await both.create_order(user.id)).id != (await both.create_order(user.id)).id


async def test_any_method_takes_its_request_message(both: BothClients) -> None:
    request = CreateUserRequest(user=new_user(), password=PASSWORD)
    response = await both.call(lambda client: client.call(methods.CREATE_USER, request))
    # The caller's message is not changed.
    assert request.request_id == ""
    get = GetUserRequest(id=response.user.id)
    assert (await both.call(lambda client: client.call(methods.GET_USER, get, timeout=5))).user == response.user
    with pytest.raises(TypeError, match="takes a GetUserRequest, not a CreateUserRequest"):
        await both.call(lambda client: client.call(methods.GET_USER, request))
    with pytest.raises(TypeError, match="WatchUsers is a stream"):
        await both.call(lambda client: client.call(methods.WATCH_USERS, WatchUsersRequest(now=True)))


async def pages_of(both: BothClients, list_: Any) -> list[int]:
    """Return the number of items of each page."""
    return [len(page.items) for page in await both.items(lambda client: list_(client).pages())]


async def test_lists_are_read_by_item_or_by_page(both: BothClients) -> None:
    user = await both.create_user()
    ids = [(await both.create_order(user.id)).id for _ in range(7)]
    found = await both.items(lambda client: client.orders.list(user_id=user.id, page_size=3, order_by="OLDEST"))
    assert [order.id for order in found] == ids
    assert await pages_of(both, lambda client: client.orders.list(user_id=user.id, page_size=3)) == [3, 3, 1]
    # Without any item there is one empty page.
    assert await pages_of(both, lambda client: client.orders.list(user_id=uuid4())) == [0]
    listed = await both.call(
        lambda client: client.orders.list(user_id=user.id, page_size=5, include_total_size=True).first_page()
    )
    assert (len(listed.items), listed.total_size, listed.response.total_size) == (5, 7, 7)
    token = {"user_id": user.id, "page_size": 5, "include_total_size": True, "page_token": listed.next_page_token}
    assert len((await both.call(lambda client: client.orders.list(**token).first_page())).items) == 2


async def test_filters_are_plain_values(both: BothClients) -> None:
    user = await both.create_user()
    order = await both.create_order(user.id)
    placed = to_datetime(order.create_time)
    second = timedelta(seconds=1)
    found = {
        "later": (placed + second, None),
        "earlier": (None, placed - second),
        "around": (placed - second, placed + second),
    }
    for name, interval in found.items():
        filters = {"user_id": UUID(user.id), "create_time": interval, "statuses": ["PENDING", OrderStatus.SHIPPED]}
        listed = await both.items(lambda client, filters=filters: client.orders.list(**filters))  # type: ignore[misc] # its default
        assert [one.id for one in listed] == ([order.id] if name == "around" else [])


async def test_one_page_is_on_its_way_while_another_is_handled(both: BothClients, log: Log) -> None:
    user = await both.create_user()
    for _ in range(5):
        await both.create_order(user.id)

    # Calls of other tests may be logged late.
    traced = {"x-request-id": f"pages-{both.kind}"}

    def listed() -> int:
        return len(log.lines(event="call", x_request_id=traced["x-request-id"]))

    async def until_listed(number: int) -> None:
        await eventually(lambda: listed() >= number)

    async def one_by_one() -> None:
        expected = 2
        async for _ in both.client.orders.list(user_id=user.id, page_size=2, grpc_metadata=traced).pages():
            await until_listed(min(expected, 3))
            expected += 1

    def in_a_thread() -> None:
        pages = both.client.orders.list(user_id=user.id, page_size=2, grpc_metadata=traced).pages()
        for expected, _ in enumerate(pages, 2):
            asyncio.run_coroutine_threadsafe(until_listed(min(expected, 3)), loop).result()

    loop = asyncio.get_running_loop()
    await (asyncio.to_thread(in_a_thread) if both.kind == "sync" else one_by_one())
    assert listed() == 3


async def test_a_list_that_is_left_early_leaves_nothing_behind(both: BothClients) -> None:
    user = await both.create_user()
    for _ in range(3):
        await both.create_order(user.id)

    def first_in_a_thread() -> Any:
        return next(iter(both.client.orders.list(user_id=user.id, page_size=1)))

    async def first() -> Any:
        return await anext(aiter(both.client.orders.list(user_id=user.id, page_size=1)))

    order = await (asyncio.to_thread(first_in_a_thread) if both.kind == "sync" else first())
    assert order.user_id == user.id


async def test_any_number_of_ids_is_read_in_their_order(both: BothClients, log: Log) -> None:
    user = await both.create_user()
    ids = [(await both.create_order(user.id)).id for _ in range(3)] * 700
    traced = {"x-request-id": f"batch-{both.kind}"}
    found = await both.call(lambda client: client.orders.batch_get(ids, grpc_metadata=traced))
    assert [order.id for order in found] == ids
    await eventually(lambda: len(log.lines(event="call", x_request_id=traced["x-request-id"])) == 3)
    assert await both.call(lambda client: client.orders.batch_get([])) == []
    with pytest.raises(OrderNotFound):
        await both.call(lambda client: client.orders.batch_get([*ids, str(uuid4())]))


async def test_a_batch_whose_response_would_be_too_large_is_read_in_parts(kind: Kind, database_url: str) -> None:
    async with (
        running_server(database_url, max_response_bytes=4096) as server,
        both_clients(kind, server.port) as both,
    ):
        user = await both.create_user(full_name="x" * 200)
        found = await both.call(lambda client: client.users.batch_get([user.id] * 100))
        assert found == [user] * 100


async def test_options_are_sent_as_metadata(both: BothClients, log: Log) -> None:
    user = await both.create_user()
    traced = {"X-Request-Id": "traced-by-a-test"}
    await both.call(lambda client: client.users.get(user.id, grpc_metadata=traced, read_preference="replica"))
    assert (await log.line(event="call", x_request_id="traced-by-a-test"))["method"].endswith("/GetUser")
    with pytest.raises(InvalidField, match="x-read-preference"):
        await both.call(lambda client: client.users.get(user.id, read_preference="nearest"))
    # A client's own default is for reads.
    replica = both.with_options(read_preference="replica", grpc_metadata={"x-request-id": "by-default"})
    await replica.create_order(user.id)
    await log.line(event="call", x_request_id="by-default")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"timeout": 0}, "timeout must be seconds"),
        ({"timeout": "5"}, "timeout must be seconds"),
        ({"timeout": float("nan")}, "timeout must be seconds"),
        ({"attempt_timeout": -1}, "attempt_timeout must be seconds"),
        ({"tmeout": 5}, "there is no option tmeout"),
    ],
)
async def test_an_option_that_makes_no_sense_is_refused(
    both: BothClients, options: dict[str, Any], problem: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=problem):
        await both.call(lambda client: client.users.get(username="ada", **options))
    with pytest.raises((TypeError, ValueError), match=problem):
        both.with_options(**options)
