from base64 import urlsafe_b64encode
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import commerce.orders.v1.order_service_pb2 as orders_pb
import commerce.users.v1.user_service_pb2 as users_pb
import pytest
from asyncpg.pgproto.pgproto import UUID as DriverUUID  # noqa: N811 - it is a class
from commerce.orders.v1.order_service_pb2 import ListOrderEventsRequest, ListOrdersRequest
from commerce.users.v1.user_pb2 import UserState
from commerce.users.v1.user_service_pb2 import ListUsersOrderBy, ListUsersRequest
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import Timestamp
from google.type.interval_pb2 import Interval
from hypothesis import assume, example, given
from hypothesis import strategies as st

from service.application.ports.queries import PageOfRows
from service.domain.errors import InvalidPageToken
from service.rpc.identity.caller import ANONYMOUS, Caller
from service.rpc.messages import orders, users
from service.rpc.signing.page_tokens import PageTokens, position
from tests.support.callers import called_by
from tests.support.properties import thorough

TOKENS = PageTokens(b"k" * 32)
NOON = datetime(2026, 1, 2, 12, 0, 0, 123456, tzinfo=UTC)
SOME_ID = UUID("01890000-0000-7000-8000-000000000001")
CALLERS = [ANONYMOUS, Caller("key:a"), Caller("key:b"), Caller("key:a", UUID(int=1)), Caller("key:a", UUID(int=2))]
URL_SAFE = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

ids = st.uuids().map(str) | st.just("")
page_sizes = st.integers(0, 2**31 - 1)
intervals = st.builds(
    Interval,
    start_time=st.builds(Timestamp, seconds=st.integers(0, 3)),
    end_time=st.builds(Timestamp, seconds=st.integers(0, 3)),
)
requests = st.one_of(
    st.builds(
        ListUsersRequest,
        states=st.lists(st.integers(1, 3), max_size=3),
        create_time=st.none() | intervals,
        superuser=st.none() | st.booleans(),
        show_deleted=st.booleans(),
        order_by=st.integers(0, 3),
        include_total_size=st.booleans(),
    ),
    st.builds(
        ListOrdersRequest,
        user_id=ids,
        statuses=st.lists(st.integers(1, 6), max_size=6),
        create_time=st.none() | intervals,
        order_by=st.integers(0, 2),
        include_total_size=st.booleans(),
    ),
    st.builds(ListOrderEventsRequest, order_id=ids, include_total_size=st.booleans()),
)
keys = st.one_of(
    st.datetimes(timezones=st.just(UTC)),
    st.uuids(),
    # Text that PostgreSQL's JSON can store: no lone surrogates.
    st.text(st.characters(exclude_categories=["Cs"])),
    st.integers(-(2**63), 2**63 - 1),
)
positions = st.lists(keys, min_size=1, max_size=3).map(tuple)


def token_for(request: Any, position: Sequence[object], tokens: PageTokens = TOKENS) -> str:
    """Return the token of a page that ends at this position."""
    names = [f"key_{number}" for number in range(len(position))]
    last = SimpleNamespace(**dict(zip(names, position, strict=True)))
    return tokens.next(request, PageOfRows([object(), object(), last], has_more=True, total_size=0), names)


def with_token(request: Any, token: str, **changed: Any) -> Any:
    """Return the request for the page of the token."""
    following = type(request)()
    following.CopyFrom(request)
    following.MergeFrom(type(request)(page_token=token, **changed))
    return following


def refused(request: Any, token: str, tokens: PageTokens = TOKENS) -> None:
    with pytest.raises(InvalidPageToken) as error:
        tokens.page(with_token(request, token))
    assert [violation.field for violation in error.value.violations] == ["page_token"]


def is_accepted(request: Any, token: str) -> bool:
    try:
        TOKENS.page(with_token(request, token))
    except InvalidPageToken:
        return False
    return True


def same_list(one: Any, other: Any) -> bool:
    """Return whether two requests are for pages of the same list."""
    if type(one) is not type(other):
        return False
    for request in (one, other):
        request.ClearField("page_size")
        request.ClearField("page_token")
    return bool(one == other)


@thorough
@given(requests, positions, page_sizes)
@example(ListUsersRequest(), (datetime.min.replace(tzinfo=UTC), UUID(int=0)), 0)
@example(ListUsersRequest(), (datetime.max.replace(tzinfo=UTC), UUID(int=2**128 - 1)), 1000)
@example(ListUsersRequest(), ('O\'Reilly said "\\" 名前 \N{PILE OF POO}\0',), 1)
@example(ListOrderEventsRequest(), (2**63 - 1,), 1)
def test_a_position_survives_for_any_page_size(request: Any, position: tuple[object, ...], page_size: int) -> None:
    token = token_for(request, position)
    page = TOKENS.page(with_token(request, token, page_size=page_size))
    assert page.after == position
    assert [type(key) for key in page.after] == [type(key) for key in position]


def test_a_uuid_of_asyncpg_becomes_an_ordinary_one() -> None:
    request = ListOrdersRequest()
    page = TOKENS.page(with_token(request, token_for(request, (NOON, DriverUUID(str(SOME_ID))))))
    assert page.after == (NOON, SOME_ID)


def test_a_time_is_exact_to_the_microsecond() -> None:
    request = ListOrdersRequest()
    times = [NOON + timedelta(microseconds=number) for number in range(100)]
    after = [TOKENS.page(with_token(request, token_for(request, (time,)))).after for time in times]
    assert after == [(time,) for time in times]


@thorough
@given(requests, requests, positions)
def test_a_token_leads_nowhere_with_other_arguments_or_another_method(
    request: Any, other: Any, position: tuple[object, ...]
) -> None:
    assume(not same_list(request, other))
    refused(other, token_for(request, position))


@pytest.mark.parametrize(
    "changed",
    [
        ListUsersRequest(states=[UserState.USER_STATE_ACTIVE]),
        ListUsersRequest(create_time=Interval(end_time=Timestamp(seconds=1))),
        ListUsersRequest(create_time=Interval()),
        ListUsersRequest(superuser=False),
        ListUsersRequest(show_deleted=True),
        ListUsersRequest(order_by=ListUsersOrderBy.LIST_USERS_ORDER_BY_NEWEST),
        ListUsersRequest(include_total_size=True),
        ListOrdersRequest(),
        ListOrderEventsRequest(),
    ],
    ids=lambda request: f"{type(request).__name__} {request}".strip(),
)
def test_a_token_of_a_plain_list_leads_nowhere_in(changed: Any) -> None:
    refused(changed, token_for(ListUsersRequest(), (NOON, SOME_ID)))
    refused(ListUsersRequest(), token_for(changed, (NOON, SOME_ID)))


PAGED = [
    GetMessageClass(method.input_type)
    for file, service in ((users_pb.DESCRIPTOR, "UserService"), (orders_pb.DESCRIPTOR, "OrderService"))
    for method in file.services_by_name[service].methods
    if "page_token" in method.input_type.fields_by_name
]


def test_every_argument_of_every_list_is_bound_by_its_token() -> None:
    for kind in PAGED:
        for field in kind.DESCRIPTOR.fields:
            request = kind()
            if field.message_type:
                getattr(request, field.name).SetInParent()
            elif field.is_repeated:
                getattr(request, field.name).append("x" if field.cpp_type == field.CPPTYPE_STRING else 1)
            else:
                setattr(request, field.name, "x" if field.cpp_type == field.CPPTYPE_STRING else 1)
            token = token_for(kind(), (SOME_ID,))
            if field.name == "page_size":
                assert TOKENS.page(with_token(request, token)).after == (SOME_ID,)
            elif field.name != "page_token":
                refused(request, token)


# One of each length modulo 3: base64 has unused bits at the end of some.
@pytest.mark.parametrize("name", ["ada", "adab", "adabe"])
def test_no_character_of_a_token_can_be_another(name: str) -> None:
    request = ListUsersRequest(order_by=ListUsersOrderBy.LIST_USERS_ORDER_BY_USERNAME)
    token = token_for(request, (name,))
    assert TOKENS.page(with_token(request, token)).after == (name,)
    damaged = [
        token[:index] + new + token[index + 1 :]
        for index, old in enumerate(token)
        for new in URL_SAFE + "+/= \n\0.é"
        if new != old
    ]
    assert [token for token in damaged if is_accepted(request, token)] == []


@pytest.mark.parametrize("name", ["ada", "adab", "adabe"])
def test_a_token_takes_no_padding(name: str) -> None:
    request = ListUsersRequest()
    token = token_for(request, (name,))
    assert [padding for padding in ("=", "==", "===", "====") if is_accepted(request, token + padding)] == []


@thorough
@given(requests, positions, st.data())
def test_a_token_is_refused_with_any_part_missing_or_added(
    request: Any, position: tuple[object, ...], data: st.DataObject
) -> None:
    token = token_for(request, position)
    start = data.draw(st.integers(0, len(token)))
    end = data.draw(st.integers(start, len(token)))
    extra = data.draw(st.text(URL_SAFE + "+/= ", max_size=3))
    damaged = token[:start] + extra + token[end:]
    assume(damaged not in {"", token})
    refused(request, damaged)


@thorough
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
@example("=")
@example("A")
@example("====")
@example("\N{FULLWIDTH LATIN CAPITAL LETTER A}AAA")
@example("A" * 1024)
def test_any_text_as_a_token_is_refused(text: str) -> None:
    refused(ListOrdersRequest(), text)


@thorough
@given(st.binary(min_size=1))
@example(b"\0" * 16)
@example(b"\0" * 16 + b'[["v",1]]')
def test_any_bytes_as_a_token_are_refused(data: bytes) -> None:
    refused(ListOrdersRequest(), urlsafe_b64encode(data).decode().rstrip("="))


@thorough
@given(requests, positions, st.binary(max_size=64))
def test_a_token_made_with_another_key_is_refused(request: Any, position: tuple[object, ...], key: bytes) -> None:
    assume(key.rstrip(b"\0") != b"k" * 32)
    refused(request, token_for(request, position, PageTokens(key)))


def test_a_token_of_an_accepted_key_is_valid_and_new_ones_have_the_own_key() -> None:
    request, both = ListOrdersRequest(), PageTokens(b"n" * 32, accepted_keys=[b"o" * 32, b"k" * 32])
    assert both.page(with_token(request, token_for(request, (1,)))).after == (1,)
    own = token_for(request, (1,), both)
    assert both.page(with_token(request, own)).after == (1,)
    refused(request, own)
    refused(ListOrdersRequest(user_id=str(SOME_ID)), token_for(request, (1,)), both)


def test_a_token_says_nothing_of_the_key_or_the_arguments() -> None:
    request = ListOrdersRequest(user_id=str(SOME_ID))
    short, long = token_for(ListOrdersRequest(), (1,)), token_for(request, (1,))
    assert len(short) == len(long)


def test_the_last_page_has_no_token() -> None:
    page = PageOfRows([SimpleNamespace(id=SOME_ID)], has_more=False, total_size=0)
    assert TOKENS.next(ListOrdersRequest(), page, ["id"]) == ""


@pytest.mark.parametrize(
    "names",
    [*users.POSITION.values(), orders.POSITION, orders.EVENT_POSITION],
    ids=" ".join,
)
def test_a_token_fits_into_the_next_request(names: tuple[str, ...]) -> None:
    longest = {
        "create_time": datetime.min.replace(tzinfo=UTC),
        "id": SOME_ID,
        "username": "z" * 50,
        "position": -(2**63),
    }
    assert 0 < len(token_for(ListOrdersRequest(), [longest[name] for name in names])) <= 1024


@pytest.mark.parametrize(("asked", "given_size"), [(0, 50), (1, 1), (1000, 1000), (1001, 1000), (2**31 - 1, 1000)])
def test_a_page_has_fifty_rows_unless_asked_and_never_more_than_a_thousand(asked: int, given_size: int) -> None:
    page = TOKENS.page(ListOrdersRequest(page_size=asked))
    assert (page.size, page.after, page.include_total_size) == (given_size, None, False)


def test_the_total_is_counted_only_when_asked_for() -> None:
    assert TOKENS.page(ListOrdersRequest(include_total_size=True)).include_total_size is True


def test_a_page_of_a_large_answer_leaves_room_for_the_token() -> None:
    assert TOKENS.page(ListOrdersRequest()).max_bytes == 4_000_000 - 4096
    assert PageTokens(b"k" * 32, 10_000).page(ListOrdersRequest()).max_bytes == 10_000 - 4096


def test_a_refused_token_says_what_to_send() -> None:
    with pytest.raises(InvalidPageToken, match="send next_page_token unchanged, with all other arguments as before"):
        TOKENS.page(ListOrdersRequest(page_token="AAAA"))  # noqa: S106 - a token is no password


# A token that an earlier release issued for NOON, SOME_ID, "ada" and 7.
OLD = (
    "I-ytusHt9t98km4TUqfuXFtbInQiLDE3NjczNTUyMDAxMjM0NTZdLFsidSIsIjAxODkwMDAwLTAwMDAtNzAwMC04MDAwLTAwMDAwMDAwMDAwMSJd"
    "LFsidiIsImFkYSJdLFsidiIsN11d"
)


def test_a_stored_token_stays_valid() -> None:
    # A client can be in the middle of a list when the server is replaced.
    assert TOKENS.page(ListOrdersRequest(page_token=OLD)).after == (NOON, SOME_ID, "ada", 7)
    # While servers are replaced, an earlier release reads the tokens of this one.
    assert token_for(ListOrdersRequest(), (NOON, SOME_ID, "ada", 7)) == OLD


def test_a_position_has_the_types_of_the_sort_columns() -> None:
    row = SimpleNamespace(create_time=1_767_355_200_123_456, id=SOME_ID, username="ada")
    assert position(row, ("create_time", "id", "username")) == (NOON, SOME_ID, "ada")


@thorough
@given(requests, positions)
def test_a_token_leads_nowhere_for_another_caller(request: Any, position: tuple[object, ...]) -> None:
    for issued_to in CALLERS:
        with called_by(issued_to):
            token = token_for(request, position)
            assert is_accepted(request, token)
        for other in CALLERS:
            if other is not issued_to:
                with called_by(other):
                    refused(request, token)
