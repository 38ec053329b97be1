from typing import Any
from uuid import uuid4

import commerce.orders.v1.order_service_pb2 as orders_pb
import commerce.users.v1.user_service_pb2 as pb
import grpc
import pytest
from commerce.orders.v1.order_pb2 import Order, OrderCreditState
from commerce.users.v1.credit_pb2 import CreditEntryType
from google.type.money_pb2 import Money

from service.domain.money import CURRENCY_DECIMALS
from tests.support.clients import Clients, item, new_order
from tests.support.failures import fails
from tests.support.methods import METHODS, call
from tests.support.passwords import PASSWORD
from tests.support.protos import documented_errors
from tests.support.servers import OwnServer


def euros(units: int, nanos: int = 0) -> Money:
    return Money(currency_code="EUR", units=units, nanos=nanos)


async def grant(clients: Clients, user_id: str, amount: Money) -> pb.GrantCreditResponse:
    return await clients.users.GrantCredit(pb.GrantCreditRequest(user_id=user_id, amount=amount, description="gift"))


async def balance(clients: Clients, user_id: str) -> tuple[Money, Money]:
    response = await clients.users.GetCreditBalance(pb.GetCreditBalanceRequest(user_id=user_id))
    (only,) = response.balances
    return only.available, only.held


async def place(clients: Clients, user_id: str, units: int) -> Order:
    order = new_order(user_id, items=[item("anvil", 1, units)])
    request = orders_pb.CreateOrderRequest(order=order, pay_with_credit=True)
    return (await clients.orders.CreateOrder(request)).order


async def entries(clients: Clients, user_id: str) -> list[Any]:
    response = await clients.users.ListCreditEntries(pb.ListCreditEntriesRequest(user_id=user_id))
    return list(response.entries)


async def test_credit_is_granted_to_the_cent(clients: Clients) -> None:
    user = await clients.create_user()
    await grant(clients, user.id, euros(10, 10_000_000))
    response = await grant(clients, user.id, euros(0, 990_000_000))
    assert response.balance.available == euros(11)
    assert await balance(clients, user.id) == (euros(11), euros(0))
    last, first = await entries(clients, user.id)
    assert (first.amount, first.balance_after, first.type) == (
        euros(10, 10_000_000),
        euros(10, 10_000_000),
        CreditEntryType.CREDIT_ENTRY_TYPE_GRANT,
    )
    assert (last.balance_after, last.description, last.actor) == (euros(11), "gift", "anonymous")


async def test_a_user_without_credit_has_no_balance_and_an_unknown_one_is_not_found(clients: Clients) -> None:
    user = await clients.create_user()
    assert not (await clients.users.GetCreditBalance(pb.GetCreditBalanceRequest(user_id=user.id))).balances
    assert not await entries(clients, user.id)
    with fails(grpc.StatusCode.NOT_FOUND, "USER_NOT_FOUND"):
        await clients.users.GetCreditBalance(pb.GetCreditBalanceRequest(user_id=str(uuid4())))
    with fails(grpc.StatusCode.NOT_FOUND, "USER_NOT_FOUND"):
        await clients.users.ListCreditEntries(pb.ListCreditEntriesRequest(user_id=str(uuid4())))


async def test_welcome_credit_comes_with_the_user(clients: Clients) -> None:
    user = await clients.create_user()
    request = pb.CreateUserRequest(user=user, password=PASSWORD, welcome_credit=euros(5))
    request.user.username, request.user.email = f"w{uuid4().hex[:12]}", f"{uuid4().hex}@example.com"
    created = (await clients.users.CreateUser(request)).user
    assert await balance(clients, created.id) == (euros(5), euros(0))


async def test_credit_is_transferred_whole_or_not_at_all(clients: Clients) -> None:
    giver, taker = await clients.create_user(), await clients.create_user()
    await grant(clients, giver.id, euros(10))
    request = pb.TransferCreditRequest(from_user_id=giver.id, to_user_id=taker.id, amount=euros(7))
    response = await clients.users.TransferCredit(request)
    assert (response.from_balance.available, response.to_balance.available) == (euros(3), euros(7))
    with fails(grpc.StatusCode.FAILED_PRECONDITION, "INSUFFICIENT_CREDIT"):
        await clients.users.TransferCredit(request)
    assert await balance(clients, giver.id) == (euros(3), euros(0))
    assert await balance(clients, taker.id) == (euros(7), euros(0))


async def test_a_transfer_to_the_same_user_is_refused(clients: Clients) -> None:
    user = await clients.create_user()
    request = pb.TransferCreditRequest(from_user_id=user.id, to_user_id=user.id, amount=euros(1))
    with fails(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", field="to_user_id"):
        await clients.users.TransferCredit(request)


@pytest.mark.parametrize(
    ("amount", "reason"),
    [
        (euros(0), "AMOUNT_OUT_OF_RANGE"),
        (euros(-1), "AMOUNT_OUT_OF_RANGE"),
        (euros(10**15), "AMOUNT_OUT_OF_RANGE"),
        (euros(0, 1), "TOO_MANY_DECIMALS"),
        (Money(currency_code="XXX", units=1), "UNKNOWN_CURRENCY"),
    ],
)
async def test_a_wrong_amount_is_refused(clients: Clients, amount: Money, reason: str) -> None:
    user = await clients.create_user()
    with fails(grpc.StatusCode.INVALID_ARGUMENT, reason):
        await grant(clients, user.id, amount)
    assert not await entries(clients, user.id)


async def test_a_balance_stays_below_what_can_be_stored(clients: Clients) -> None:
    user = await clients.create_user()
    await grant(clients, user.id, euros(10**15 - 1))
    with fails(grpc.StatusCode.INVALID_ARGUMENT, "AMOUNT_OUT_OF_RANGE", field="amount"):
        await grant(clients, user.id, euros(1))


async def test_a_deleted_user_gets_no_credit(clients: Clients) -> None:
    user = await clients.create_user()
    await clients.users.DeleteUser(pb.DeleteUserRequest(id=user.id))
    with fails(grpc.StatusCode.FAILED_PRECONDITION, "USER_DELETED"):
        await grant(clients, user.id, euros(1))


async def test_an_order_holds_spends_and_gives_back_credit(clients: Clients) -> None:
    user = await clients.create_user()
    await grant(clients, user.id, euros(100))
    order = await place(clients, user.id, 30)
    assert order.credit.state == OrderCreditState.ORDER_CREDIT_STATE_HELD
    assert order.credit.HasField("expire_time")
    assert await balance(clients, user.id) == (euros(70), euros(30))
    confirmed = (await clients.orders.ConfirmOrder(orders_pb.ConfirmOrderRequest(id=order.id))).order
    assert confirmed.credit.state == OrderCreditState.ORDER_CREDIT_STATE_POSTED
    assert await balance(clients, user.id) == (euros(70), euros(0))
    cancel = orders_pb.CancelOrderRequest(id=order.id, reason="broken")
    cancelled = (await clients.orders.CancelOrder(cancel)).order
    assert cancelled.credit.state == OrderCreditState.ORDER_CREDIT_STATE_REVERSED
    assert await balance(clients, user.id) == (euros(100), euros(0))
    types = [CreditEntryType.Name(entry.type) for entry in reversed(await entries(clients, user.id))]
    assert [name.removeprefix("CREDIT_ENTRY_TYPE_") for name in types] == ["GRANT", "HOLD", "HOLD", "POST", "REVERSAL"]
    assert {entry.order_id for entry in (await entries(clients, user.id))[:4]} == {order.id}


async def test_cancelling_before_confirmation_voids_the_hold(clients: Clients) -> None:
    user = await clients.create_user()
    await grant(clients, user.id, euros(100))
    order = await place(clients, user.id, 30)
    cancel = orders_pb.CancelOrderRequest(id=order.id, reason="changed my mind")
    cancelled = (await clients.orders.CancelOrder(cancel)).order
    assert cancelled.credit.state == OrderCreditState.ORDER_CREDIT_STATE_VOIDED
    assert not cancelled.credit.HasField("expire_time")
    assert await balance(clients, user.id) == (euros(100), euros(0))


@pytest.mark.parametrize(("units", "held"), [(50, 50), (10, 10), (30, 30), (0, 0)])
async def test_the_hold_follows_the_total(clients: Clients, units: int, held: int) -> None:
    user = await clients.create_user()
    await grant(clients, user.id, euros(60))
    order = await place(clients, user.id, 30)
    changed = Order(id=order.id, items=[item("rocket", 1, units)])
    await clients.orders.UpdateOrder(orders_pb.UpdateOrderRequest(order=changed))
    assert await balance(clients, user.id) == (euros(60 - held), euros(held))


async def test_the_hold_follows_the_total_into_another_currency(clients: Clients) -> None:
    user = await clients.create_user()
    await grant(clients, user.id, euros(60))
    await grant(clients, user.id, Money(currency_code="JPY", units=500))
    order = await place(clients, user.id, 30)
    changed = Order(id=order.id, items=[item("rocket", 1, 400, currency="JPY")])
    await clients.orders.UpdateOrder(orders_pb.UpdateOrderRequest(order=changed))
    response = await clients.users.GetCreditBalance(pb.GetCreditBalanceRequest(user_id=user.id))
    assert [(b.available.currency_code, b.available.units, b.held.units) for b in response.balances] == [
        ("EUR", 60, 0),
        ("JPY", 100, 400),
    ]


async def test_credit_that_no_balance_can_hold_is_not_given_back(clients: Clients) -> None:
    most = 999_999_999_999_999
    payer, owner = (await clients.create_user()).id, (await clients.create_user()).id
    await grant(clients, payer, euros(most))
    order_id = (await place(clients, payer, most)).id
    await grant(clients, payer, euros(1))
    transfer = orders_pb.TransferOrdersRequest(from_user_id=payer, to_user_id=owner)
    await clients.orders.TransferOrders(transfer)
    calls = {
        "CancelOrder": orders_pb.CancelOrderRequest(id=order_id, reason="no"),
        "PurgeUser": pb.PurgeUserRequest(id=owner, force=True),
    }
    for method, request in calls.items():
        with fails(grpc.StatusCode.INVALID_ARGUMENT, "AMOUNT_OUT_OF_RANGE"):
            await call(clients.channel, method, request)
        assert ("INVALID_ARGUMENT", "AMOUNT_OUT_OF_RANGE") in documented_errors(METHODS[method])
    # It can still be spent.
    await clients.orders.ConfirmOrder(orders_pb.ConfirmOrderRequest(id=order_id))


async def test_an_order_that_costs_more_than_the_credit_is_refused(clients: Clients) -> None:
    user = await clients.create_user()
    await grant(clients, user.id, euros(20))
    with fails(grpc.StatusCode.FAILED_PRECONDITION, "INSUFFICIENT_CREDIT"):
        await place(clients, user.id, 21)
    order = await place(clients, user.id, 20)
    changed = Order(id=order.id, items=[item("rocket", 1, 21)])
    with fails(grpc.StatusCode.FAILED_PRECONDITION, "INSUFFICIENT_CREDIT"):
        await clients.orders.UpdateOrder(orders_pb.UpdateOrderRequest(order=changed))
    assert await balance(clients, user.id) == (euros(0), euros(20))
    assert (await clients.orders.GetOrder(orders_pb.GetOrderRequest(id=order.id))).order == order


async def test_an_order_without_credit_payment_touches_no_credit(clients: Clients) -> None:
    user = await clients.create_user()
    await grant(clients, user.id, euros(20))
    order = await clients.create_order(user.id)
    await clients.orders.ConfirmOrder(orders_pb.ConfirmOrderRequest(id=order.id))
    assert not order.HasField("credit")
    assert await balance(clients, user.id) == (euros(20), euros(0))


async def test_what_is_stored_in_a_withdrawn_currency_stays_usable(
    own: OwnServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients, user_id = own.clients, (await own.clients.create_user()).id
    price = Money(currency_code="BGN", units=10)
    with monkeypatch.context() as patch:
        patch.setattr("service.domain.money.CURRENCY_DECIMALS", {**CURRENCY_DECIMALS, "BGN": 2})
        hundred = Money(currency_code="BGN", units=100)
        await clients.users.GrantCredit(pb.GrantCreditRequest(user_id=user_id, amount=hundred))
        requests = [
            orders_pb.CreateOrderRequest(
                order=new_order(user_id, items=[item("anvil", 1, 10, currency="BGN")]), pay_with_credit=with_credit
            )
            for with_credit in (True, True, False, False)
        ]
        ids = [(await clients.orders.CreateOrder(request)).order.id for request in requests]
    # New amounts are refused.
    for call_again in (
        clients.orders.CreateOrder(requests[0]),
        clients.users.GrantCredit(pb.GrantCreditRequest(user_id=user_id, amount=price)),
    ):
        with fails(grpc.StatusCode.INVALID_ARGUMENT, "UNKNOWN_CURRENCY"):
            await call_again
    # Everything else is answered.
    update = orders_pb.UpdateOrderRequest(order=Order(id=ids[0], external_ref="kept"))
    assert (await clients.orders.UpdateOrder(update)).order.total_amount == price
    for order_id in (ids[0], ids[2]):
        await clients.orders.ConfirmOrder(orders_pb.ConfirmOrderRequest(id=order_id))
    for order_id in (ids[0], ids[1]):
        await clients.orders.CancelOrder(orders_pb.CancelOrderRequest(id=order_id, reason="no"))
    in_euros = orders_pb.UpdateOrderRequest(order=Order(id=ids[3], items=[item("anvil", 1, 5)]))
    assert (await clients.orders.UpdateOrder(in_euros)).order.total_amount.currency_code == "EUR"
    events = (await clients.orders.ListOrderEvents(orders_pb.ListOrderEventsRequest(order_id=ids[3]))).events
    assert [(change.old_value, change.new_value) for change in events[-1].changes] == [("", ""), ("10 BGN", "5.00 EUR")]
    assert len((await clients.orders.ListOrders(orders_pb.ListOrdersRequest(user_id=user_id))).orders) == 4
    statistics = await clients.orders.GetOrderStatistics(orders_pb.GetOrderStatisticsRequest(user_id=user_id))
    assert {row.total_amount.currency_code for row in statistics.statistics} == {"BGN", "EUR"}
    balances = (await clients.users.GetCreditBalance(pb.GetCreditBalanceRequest(user_id=user_id))).balances
    assert [(balance.available.units, balance.available.currency_code) for balance in balances] == [(100, "BGN")]
    assert (await clients.users.ListCreditEntries(pb.ListCreditEntriesRequest(user_id=user_id))).entries
    other = (await clients.create_user()).id
    transfer = pb.TransferCreditRequest(from_user_id=user_id, to_user_id=other, amount=price)
    assert (await clients.users.TransferCredit(transfer)).to_balance.available == price
    for code in ("BGM", "bgn", "BGNN"):
        transfer.amount.currency_code = code
        with fails(grpc.StatusCode.INVALID_ARGUMENT, "UNKNOWN_CURRENCY"):
            await clients.users.TransferCredit(transfer)
    too_small = Money(currency_code="BGN", nanos=10_000)
    with fails(grpc.StatusCode.INVALID_ARGUMENT, "TOO_MANY_DECIMALS"):
        await clients.users.TransferCredit(
            pb.TransferCreditRequest(from_user_id=user_id, to_user_id=other, amount=too_small)
        )
    await clients.users.PurgeUser(pb.PurgeUserRequest(id=user_id, force=True))
