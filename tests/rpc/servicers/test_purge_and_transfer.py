import json
from typing import Any
from uuid import uuid4

import commerce.orders.v1.order_service_pb2 as orders_pb
import commerce.users.v1.user_service_pb2 as pb
import grpc
import pytest
from commerce.orders.v1.note_pb2 import OrderNote
from commerce.orders.v1.order_pb2 import OrderEvent, OrderEventType, OrderStatus
from commerce.users.v1.user_pb2 import User
from google.type.interval_pb2 import Interval
from google.type.money_pb2 import Money

from service.application.ports.queries import MAX_SUMS
from service.config import DatabaseSettings, load
from service.db.connections.engine import create_engine
from service.db.operations.ledger import ledger_differences
from tests.support.clients import Clients, item, new_order, new_user
from tests.support.databases import driver_connection
from tests.support.failures import fails
from tests.support.methods import call
from tests.support.passwords import PASSWORD
from tests.support.sent_statements import sent_statements
from tests.support.servers import serving_clients
from tests.support.watching import watch_orders


async def grant(clients: Clients, user_id: str, units: int) -> None:
    amount = Money(currency_code="EUR", units=units)
    await clients.users.GrantCredit(pb.GrantCreditRequest(user_id=user_id, amount=amount))


async def place(clients: Clients, user_id: str, units: int, *, pay_with_credit: bool = False, ref: str = "") -> str:
    order = new_order(user_id, items=[item("anvil", 1, units)], external_ref=ref)
    request = orders_pb.CreateOrderRequest(order=order, pay_with_credit=pay_with_credit)
    return (await clients.orders.CreateOrder(request)).order.id


async def transfer(clients: Clients, giver: str, taker: str) -> int:
    request = orders_pb.TransferOrdersRequest(from_user_id=giver, to_user_id=taker)
    return (await clients.orders.TransferOrders(request)).transferred_count


async def purge(clients: Clients, user_id: str, *, force: bool = False) -> int:
    request = pb.PurgeUserRequest(id=user_id, force=force)
    return (await clients.users.PurgeUser(request)).purged_order_count


async def held_and_available(clients: Clients, user_id: str) -> tuple[int, int]:
    response = await clients.users.GetCreditBalance(pb.GetCreditBalanceRequest(user_id=user_id))
    (only,) = response.balances
    return only.held.units, only.available.units


async def test_all_orders_go_to_another_user_with_an_event_each(clients: Clients) -> None:
    giver, taker = await clients.create_user(), await clients.create_user()
    ids = {await place(clients, giver.id, 1) for _ in range(3)}
    own = await place(clients, taker.id, 1)
    assert await transfer(clients, giver.id, taker.id) == 3
    listed = await clients.orders.ListOrders(orders_pb.ListOrdersRequest(user_id=taker.id))
    assert {order.id for order in listed.orders} == {*ids, own}
    assert {order.etag for order in listed.orders if order.id in ids} == {"v2"}
    assert not (await clients.orders.ListOrders(orders_pb.ListOrdersRequest(user_id=giver.id))).orders
    request = orders_pb.ListOrderEventsRequest(order_id=ids.pop())
    (_, event) = (await clients.orders.ListOrderEvents(request)).events
    assert event.type == OrderEventType.ORDER_EVENT_TYPE_TRANSFERRED
    assert [(c.field, c.old_value, c.new_value) for c in event.changes] == [("user_id", giver.id, taker.id)]


async def test_the_time_of_a_transfer_is_not_before_the_last_change(database_url: str) -> None:
    async with serving_clients(database_url) as clients, driver_connection(database_url) as connection:
        giver, taker = await clients.create_user(), await clients.create_user()
        order_id = await place(clients, giver.id, 1)
        # As a server whose clock is ahead would write it.
        await connection.execute("UPDATE orders SET update_time = now() + interval '1 hour'")
        await transfer(clients, giver.id, taker.id)
        order = (await clients.orders.GetOrder(orders_pb.GetOrderRequest(id=order_id))).order
        listed = await clients.orders.ListOrderEvents(orders_pb.ListOrderEventsRequest(order_id=order_id))
        assert listed.events[-1].create_time == order.update_time


async def test_orders_and_notes_have_the_last_12_bits_of_the_user_who_placed_them(clients: Clients) -> None:
    giver, taker = await clients.create_user(), await clients.create_user()
    await grant(clients, giver.id, 50)
    ids = [await place(clients, giver.id, 1), await place(clients, giver.id, 1, pay_with_credit=True)]
    await transfer(clients, giver.id, taker.id)
    for order_id in list(ids):
        note = OrderNote(order_id=order_id, author_id=taker.id, body="mine now")
        ids.append((await clients.orders.CreateOrderNote(orders_pb.CreateOrderNoteRequest(note=note))).note.id)
    assert {made[-3:] for made in ids} == {giver.id[-3:]}


async def test_a_transfer_with_one_conflict_moves_nothing(clients: Clients) -> None:
    giver, taker = await clients.create_user(), await clients.create_user()
    await place(clients, giver.id, 1)
    await place(clients, giver.id, 1, ref="same")
    same = await place(clients, taker.id, 1, ref="same")
    with fails(grpc.StatusCode.ALREADY_EXISTS, "ORDER_ALREADY_EXISTS") as failure:
        await transfer(clients, giver.id, taker.id)
    assert failure.metadata == {"field": "external_ref", "external_refs": '["same"]', "count": "1"}
    assert len((await clients.orders.ListOrders(orders_pb.ListOrdersRequest(user_id=giver.id))).orders) == 2
    await clients.orders.CancelOrder(orders_pb.CancelOrderRequest(id=same, reason="ordered twice"))
    assert await transfer(clients, giver.id, taker.id) == 2


@pytest.mark.parametrize(("ref", "named"), [("cart-{}", 20), ("\U0001f680" * 97 + "{:03}", 2), ('"\\,{}', 20)])
async def test_a_refused_transfer_names_the_references_of_both_users(clients: Clients, ref: str, named: int) -> None:
    giver, taker = await clients.create_user(), await clients.create_user()
    refs = sorted(ref.format(number) for number in range(25))
    for user in (giver, taker):
        for shared in refs:
            await place(clients, user.id, 1, ref=shared)
        await place(clients, user.id, 1, ref=f"of {user.id}")
    with fails(grpc.StatusCode.ALREADY_EXISTS, "ORDER_ALREADY_EXISTS") as failure:
        await transfer(clients, giver.id, taker.id)
    found = json.loads(failure.metadata["external_refs"])
    assert len(found) <= named
    assert len(set(found) & set(refs)) == len(found) > 0
    assert failure.metadata["count"] == "25"


async def test_orders_go_to_an_active_user_only(clients: Clients) -> None:
    giver, taker = await clients.create_user(), await clients.create_user()
    await clients.users.DeactivateUser(pb.DeactivateUserRequest(id=taker.id))
    with fails(grpc.StatusCode.FAILED_PRECONDITION, "USER_NOT_ACTIVE"):
        await transfer(clients, giver.id, taker.id)
    with fails(grpc.StatusCode.NOT_FOUND, "USER_NOT_FOUND"):
        await transfer(clients, giver.id, str(uuid4()))
    with fails(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", field="to_user_id"):
        await transfer(clients, giver.id, giver.id)


async def test_credit_that_pays_for_a_transferred_order_stays_the_giver_s(clients: Clients) -> None:
    giver, taker = await clients.create_user(), await clients.create_user()
    await grant(clients, giver.id, 50)
    order_id = await place(clients, giver.id, 30, pay_with_credit=True)
    await transfer(clients, giver.id, taker.id)
    await clients.orders.CancelOrder(orders_pb.CancelOrderRequest(id=order_id, reason="no"))
    assert await held_and_available(clients, giver.id) == (0, 50)


async def test_a_user_in_use_is_purged_by_force_only(clients: Clients) -> None:
    with_order, with_credit = await clients.create_user(), await clients.create_user()
    await place(clients, with_order.id, 1)
    await grant(clients, with_credit.id, 1)
    for user in (with_order, with_credit):
        with fails(grpc.StatusCode.FAILED_PRECONDITION, "USER_IN_USE"):
            await purge(clients, user.id)
    assert await purge(clients, with_order.id, force=True) == 1
    assert await purge(clients, with_credit.id, force=True) == 0
    with fails(grpc.StatusCode.NOT_FOUND, "USER_NOT_FOUND"):
        await clients.users.GetUser(pb.GetUserRequest(id=with_order.id))


async def test_a_user_with_closed_orders_is_purged_and_its_names_are_free(clients: Clients) -> None:
    user = await clients.create_user()
    order_id = await place(clients, user.id, 1)
    await clients.orders.CancelOrder(orders_pb.CancelOrderRequest(id=order_id, reason="no"))
    assert await purge(clients, user.id) == 1
    with fails(grpc.StatusCode.NOT_FOUND, "ORDER_NOT_FOUND"):
        await clients.orders.ListOrderEvents(orders_pb.ListOrderEventsRequest(order_id=order_id))
    again = await clients.create_user(email=user.email, username=user.username)
    assert again.id != user.id


async def test_a_purge_leaves_no_trace_but_its_event_and_the_ledgers_of_others_whole(database_url: str) -> None:
    async with serving_clients(database_url) as clients:
        user, friend, heir = [await clients.create_user() for _ in range(3)]
        await grant(clients, user.id, 100)
        await grant(clients, friend.id, 100)
        for giver, taker in ((user, friend), (friend, user)):
            amount = Money(currency_code="EUR", units=10)
            request = pb.TransferCreditRequest(from_user_id=giver.id, to_user_id=taker.id, amount=amount)
            await clients.users.TransferCredit(request)
        # One paid by the user and transferred to the heir; one paid by the friend and transferred to the user.
        kept = await place(clients, user.id, 20, pay_with_credit=True)
        await transfer(clients, user.id, heir.id)
        await place(clients, friend.id, 30, pay_with_credit=True)
        await transfer(clients, friend.id, user.id)
        await place(clients, user.id, 5, pay_with_credit=True)
        assert await purge(clients, user.id, force=True) == 2
        order = (await clients.orders.GetOrder(orders_pb.GetOrderRequest(id=kept))).order
        assert not order.HasField("credit")
        assert await held_and_available(clients, friend.id) == (0, 100)
        assert await purge(clients, friend.id, force=True) == 0
    async with driver_connection(database_url) as connection:
        tables = ["users", "user_passwords", "user_profiles", "credit_accounts", "credit_entries", "orders", "events"]
        text = [str(row) for table in tables for row in await connection.fetch(f"SELECT t::text FROM {table} t")]
        mentions = [row for row in text if user.id in row]
        # The event of the purge, and two of the remaining order: its creation and its transfer by the user.
        assert len(mentions) == 3, mentions
        assert await connection.fetchval("SELECT count(*) FROM credit_entries") == 0
    engine = create_engine(load(DatabaseSettings, DATABASE_URL=database_url), pool_size=1)
    assert await ledger_differences(engine) == []
    await engine.dispose()


async def test_statistics_count_and_add_up_by_day_status_and_currency(database_url: str) -> None:
    async with serving_clients(database_url) as clients:
        ada, grace = await clients.create_user(), await clients.create_user()
        confirmed = await place(clients, ada.id, 10)
        await place(clients, ada.id, 20)
        await place(clients, grace.id, 5)
        yen = new_order(ada.id, items=[item("fan", 1, 700, currency="JPY")])
        await clients.orders.CreateOrder(orders_pb.CreateOrderRequest(order=yen))
        await clients.orders.ConfirmOrder(orders_pb.ConfirmOrderRequest(id=confirmed))
        answer = await clients.orders.GetOrderStatistics(orders_pb.GetOrderStatisticsRequest(more_than_orders=1))
        sums = {
            (OrderStatus.Name(row.status), row.total_amount.currency_code): (row.order_count, row.total_amount.units)
            for row in answer.statistics
        }
        assert sums == {
            ("ORDER_STATUS_CONFIRMED", "EUR"): (1, 10),
            ("ORDER_STATUS_PENDING", "EUR"): (2, 25),
            ("ORDER_STATUS_PENDING", "JPY"): (1, 700),
        }
        (top,) = answer.top_users
        assert (top.user_id, top.order_count) == (ada.id, 3)
        assert [(money.currency_code, money.units) for money in top.total_amounts] == [("EUR", 30), ("JPY", 700)]
        everyone = await clients.orders.GetOrderStatistics(orders_pb.GetOrderStatisticsRequest())
        assert [user.user_id for user in everyone.top_users] == [ada.id, grace.id]
        future = Interval()
        future.start_time.GetCurrentTime()
        nothing = await clients.orders.GetOrderStatistics(orders_pb.GetOrderStatisticsRequest(create_time=future))
        assert nothing == orders_pb.GetOrderStatisticsResponse()


@pytest.mark.parametrize("days_ago", [1, 400])
async def test_statistics_name_the_day_in_utc(database_url: str, days_ago: int) -> None:
    async with serving_clients(database_url) as clients:
        await place(clients, (await clients.create_user()).id, 10)
        async with driver_connection(database_url) as connection:
            late = "date_trunc('day', now(), 'UTC') - make_interval(secs => 1) - make_interval(days => $1)"
            day = await connection.fetchval(
                f"UPDATE orders SET create_time = {late} RETURNING (create_time AT TIME ZONE 'UTC')::date", days_ago
            )
        answer = await clients.orders.GetOrderStatistics(orders_pb.GetOrderStatisticsRequest())
        assert [(s.day.year, s.day.month, s.day.day) for s in answer.statistics] == [(day.year, day.month, day.day)]


@pytest.mark.parametrize("fast_path", [True, False])
async def test_a_purge_takes_stored_responses_along(database_url: str, *, fast_path: bool) -> None:
    async with serving_clients(database_url, fast_path=fast_path) as clients:
        user, other = await clients.create_user(), await clients.create_user()
        others_order = await place(clients, other.id, 1)
        own_order = await place(clients, user.id, 1)
        euro = Money(currency_code="EUR", units=1)
        requests: list[tuple[str, Any]] = [
            ("CreateUser", pb.CreateUserRequest(user=new_user(), password=PASSWORD)),
            ("UpdateUser", pb.UpdateUserRequest(user=User(id=user.id, full_name="Grace"))),
            ("GrantCredit", pb.GrantCreditRequest(user_id=user.id, amount=euro)),
            ("TransferCredit", pb.TransferCreditRequest(from_user_id=user.id, to_user_id=other.id, amount=euro)),
            ("TransferCredit", pb.TransferCreditRequest(from_user_id=other.id, to_user_id=user.id, amount=euro)),
            ("CreateOrder", orders_pb.CreateOrderRequest(order=new_order(user.id, external_ref="mine"))),
            ("ConfirmOrder", orders_pb.ConfirmOrderRequest(id=own_order)),
            ("AddOrderTags", orders_pb.AddOrderTagsRequest(id=own_order, tags=["mine"])),
            *(
                (
                    "CreateOrderNote",
                    orders_pb.CreateOrderNoteRequest(note=OrderNote(order_id=order, author_id=author, body="secret")),
                )
                for order, author in [(own_order, user.id), (own_order, other.id), (others_order, user.id)]
            ),
        ]
        created = ""
        for method, request in requests:
            request.request_id = str(uuid4())
            response = await call(clients.channel, method, request)
            created = response.user.id if method == "CreateUser" else created
        kept = orders_pb.ConfirmOrderRequest(id=others_order, request_id=str(uuid4()))
        answer = await clients.orders.ConfirmOrder(kept)
        purging = pb.PurgeUserRequest(id=user.id, force=True, request_id=str(uuid4()))
        await clients.users.PurgeUser(pb.PurgeUserRequest(id=created))
        purged = await clients.users.PurgeUser(purging)
        # These answer as before.
        assert await clients.orders.ConfirmOrder(kept) == answer
        assert await clients.users.PurgeUser(purging) == purged
        async with driver_connection(database_url) as connection:
            methods = {row["method"] for row in await connection.fetch("SELECT method FROM request_ids")}
        assert {method.rpartition("/")[2] for method in methods} == {"ConfirmOrder", "PurgeUser"}
        for method, request in requests[1:]:
            with pytest.raises(grpc.aio.AioRpcError, match="NOT_FOUND"):
                await call(clients.channel, method, request)
        assert (await call(clients.channel, *requests[0])).user.id != created


# Copies one order, as if it had been placed many times.
COPY_ORDERS = """
INSERT INTO orders (id, order_number, user_id, status, currency, total_amount, metadata, version, create_time,
    update_time)
SELECT ('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 'BIG-' || n, user_id, status, currency,
    total_amount, metadata, version, create_time, update_time
FROM orders, generate_series($1::int, $2::int) n WHERE id = $3
"""


async def test_the_events_of_a_large_transfer_are_written_in_parts(database_url: str) -> None:
    async with serving_clients(database_url) as clients, driver_connection(database_url) as connection:
        giver, taker = (await clients.create_user()).id, (await clients.create_user()).id
        order_id = await place(clients, giver, 1)
        # Without triggers, which would check each copy before it has items.
        await connection.execute("SET session_replication_role = replica")
        await connection.execute(COPY_ORDERS, 1, 1999, order_id)
        await connection.execute(
            "INSERT INTO order_items (order_id, id, product_id, name, quantity, unit_price, subtotal)"
            " SELECT o.id, i.id, product_id, name, quantity, unit_price, subtotal"
            " FROM order_items i, orders o WHERE i.order_id <> o.id"
        )
        with sent_statements() as sent:
            assert await transfer(clients, giver, taker) == 2000
        written = [rows for statement, rows in sent if statement.startswith("INSERT INTO events")]
        assert [len(rows) for rows in written] == [1000, 1000]


async def test_statistics_of_too_many_days_are_refused_before_they_are_built(database_url: str) -> None:
    async with serving_clients(database_url) as clients, driver_connection(database_url) as connection:
        order_id = await place(clients, (await clients.create_user()).id, 1)
        # Without triggers, which would check the items of each copy.
        await connection.execute("SET session_replication_role = replica")
        await connection.execute(COPY_ORDERS, 1, MAX_SUMS - 2, order_id)
        await connection.execute(
            "UPDATE orders SET create_time = update_time - make_interval(days => substring(order_number, 5)::int)"
            " WHERE id <> $1",
            order_id,
        )
        # A day for each order, and one top user.
        answer = await clients.orders.GetOrderStatistics(orders_pb.GetOrderStatisticsRequest())
        assert len(answer.statistics) + len(answer.top_users) == MAX_SUMS
        grace = await clients.create_user()
        await place(clients, grace.id, 2)
        with fails(grpc.StatusCode.RESOURCE_EXHAUSTED, "RESPONSE_TOO_LARGE"):
            await clients.orders.GetOrderStatistics(orders_pb.GetOrderStatisticsRequest())
        of_one = orders_pb.GetOrderStatisticsRequest(user_id=grace.id)
        assert len((await clients.orders.GetOrderStatistics(of_one)).statistics) == 1


async def test_statistics_of_sums_that_no_money_can_hold_are_the_largest_money(database_url: str) -> None:
    async with serving_clients(database_url) as clients:
        order_id = await place(clients, (await clients.create_user()).id, 999_999_999_999_999)

        async def sums() -> list[Money]:
            answer = await clients.orders.GetOrderStatistics(orders_pb.GetOrderStatisticsRequest())
            return [answer.statistics[0].total_amount, *answer.top_users[0].total_amounts]

        async with driver_connection(database_url) as connection:
            # Without triggers, which would check the items of each copy.
            await connection.execute("SET session_replication_role = replica")
            await connection.execute(COPY_ORDERS, 1, 9222, order_id)
            assert await sums() == [Money(currency_code="EUR", units=9223 * 999_999_999_999_999)] * 2
            await connection.execute(COPY_ORDERS, 9223, 9223, order_id)
        assert await sums() == [Money(currency_code="EUR", units=2**63 - 1, nanos=999_999_999)] * 2


@pytest.mark.parametrize("confirmed", [True, False], ids=["spent", "held"])
async def test_an_order_that_a_purge_unpays_changes_as_everything_does(clients: Clients, *, confirmed: bool) -> None:
    payer, heir = await clients.create_user(), await clients.create_user()
    await grant(clients, payer.id, 50)
    order_id = await place(clients, payer.id, 30, pay_with_credit=True)
    await transfer(clients, payer.id, heir.id)
    if confirmed:
        await clients.orders.ConfirmOrder(orders_pb.ConfirmOrderRequest(id=order_id))
    note = OrderNote(order_id=order_id, author_id=payer.id, body="fragile")
    note = (await clients.orders.CreateOrderNote(orders_pb.CreateOrderNoteRequest(note=note))).note
    before = (await clients.orders.GetOrder(orders_pb.GetOrderRequest(id=order_id))).order
    async with watch_orders(clients, now=True) as stream:
        await stream.checkpoint()
        await purge(clients, payer.id, force=True)
        watched: list[OrderEvent] = []
        while len(watched) < 2:
            watched += [event for event in await stream.events(1) if event.order_id == order_id]
    after = (await clients.orders.GetOrder(orders_pb.GetOrderRequest(id=order_id))).order
    assert before.HasField("credit")
    assert not after.HasField("credit")
    assert after.etag != before.etag
    assert after.update_time.ToDatetime() > before.update_time.ToDatetime()
    listed = (await clients.orders.ListOrderEvents(orders_pb.ListOrderEventsRequest(order_id=order_id))).events
    assert sorted(event.id for event in listed[-2:]) == sorted(event.id for event in watched)
    changes = {
        OrderEventType.Name(event.type).removeprefix("ORDER_EVENT_TYPE_"): [
            (change.field, change.old_value, change.new_value) for change in event.changes
        ]
        for event in watched
    }
    state = "POSTED" if confirmed else "HELD"
    assert changes == {"UPDATED": [("credit.state", state, "")], "NOTE_DELETED": [("note_id", note.id, "")]}
    stale = orders_pb.CancelOrderRequest(id=order_id, etag=before.etag, reason="no")
    with fails(grpc.StatusCode.ABORTED, "ETAG_MISMATCH"):
        await clients.orders.CancelOrder(stale)
    shown = orders_pb.ListOrderNotesRequest(order_id=order_id, include_drafts=True)
    assert not (await clients.orders.ListOrderNotes(shown)).notes
