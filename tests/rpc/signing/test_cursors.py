from base64 import urlsafe_b64decode, urlsafe_b64encode
from uuid import UUID

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from service.application.ports.events import EventPosition
from service.domain.errors import InvalidCursor
from service.rpc.identity.caller import ANONYMOUS, Caller
from service.rpc.signing.cursors import Cursors
from tests.support.callers import called_by
from tests.support.properties import thorough

CURSORS = Cursors(b"k" * 32, "commerce.orders.v1.OrderService")
CALLERS = [ANONYMOUS, Caller("key:a"), Caller("key:b"), Caller("key:a", UUID(int=1)), Caller("key:a", UUID(int=2))]
numbers = st.integers(0, 2**64 - 1)
positions = st.builds(
    EventPosition,
    xid=numbers,
    position=numbers,
    database=st.integers(-(2**63), 2**63 - 1),
    timeline=st.integers(0, 2**32 - 1),
    event=numbers,
)


def refused(cursor: str, cursors: Cursors = CURSORS) -> None:
    with pytest.raises(InvalidCursor, match="not issued by this service") as error:
        cursors.read(cursor)
    assert [violation.field for violation in error.value.violations] == ["cursor"]


@thorough
@given(positions)
@example(EventPosition(0, 0))
@example(EventPosition(2**64 - 1, 2**64 - 1))
def test_a_position_survives(position: EventPosition) -> None:
    assert CURSORS.read(CURSORS.write(position)) == position


def test_a_cursor_of_an_accepted_key_is_valid_and_new_ones_have_the_own_key() -> None:
    position = EventPosition(1, 2, 3, 4, 5)
    both = Cursors(b"n" * 32, "commerce.orders.v1.OrderService", [b"o" * 32, b"k" * 32])
    assert both.read(CURSORS.write(position)) == position
    assert both.read(both.write(position)) == position
    refused(both.write(position))
    refused(Cursors(b"k" * 32, "commerce.users.v1.UserService").write(position), both)


@thorough
@given(positions, st.binary(max_size=40), st.text(max_size=40))
def test_a_cursor_of_another_key_or_service_is_refused(position: EventPosition, key: bytes, service: str) -> None:
    # HMAC fills a short key with zeros.
    assume(key.rstrip(b"\0") != b"k" * 32)
    refused(Cursors(key, "commerce.orders.v1.OrderService").write(position))
    refused(Cursors(b"k" * 32, service).write(position))


@pytest.mark.parametrize("text", ["", "A", "=", "é", "A" * 43, "A" * 1024])
def test_any_text_is_refused(text: str) -> None:
    refused(text)


@thorough
@given(positions, st.integers(0, 1000), st.integers(1, 255))
def test_a_cursor_with_a_changed_byte_is_refused(position: EventPosition, index: int, change: int) -> None:
    data = bytearray(decoded(CURSORS.write(position)))
    data[index % len(data)] ^= change
    refused(encoded(bytes(data)))


@thorough
@given(positions, st.binary(min_size=1, max_size=20), st.integers(1, 31))
def test_a_longer_or_a_shorter_cursor_is_refused(position: EventPosition, more: bytes, missing: int) -> None:
    data = decoded(CURSORS.write(position))
    refused(encoded(data + more))
    refused(encoded(data[:-missing]))


def test_a_cursor_needs_no_escaping() -> None:
    assert CURSORS.write(EventPosition(2**64 - 1, 2**64 - 1)).replace("-", "").replace("_", "").isalnum()


def test_a_stored_cursor_stays_valid() -> None:
    # Consumers store cursors for as long as events are stored.
    assert CURSORS.read("vV0cwHkpuHNeEBDzPAGaFAAAAAAAAAABAAAAAAAAAAI") == EventPosition(1, 2)


def encoded(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")


def decoded(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


@thorough
@given(positions)
def test_a_cursor_is_valid_only_for_the_caller_to_whom_it_was_issued(position: EventPosition) -> None:
    for issued_to in CALLERS:
        with called_by(issued_to):
            cursor = CURSORS.write(position)
            assert CURSORS.read(cursor) == position
        for other in CALLERS:
            if other is not issued_to:
                with called_by(other):
                    refused(cursor)


def test_a_cursor_of_an_anonymous_caller_is_one_without_a_caller() -> None:
    cursor = CURSORS.write(EventPosition(1, 2))
    with called_by(ANONYMOUS):
        assert CURSORS.write(EventPosition(1, 2)) == cursor
