"""Ids of orders and notes name the shard of their user, and are unique and sorted by time all the same."""

import subprocess
import sys
import time
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st
from uuid_utils.compat import uuid7

from service.domain.ids import SHARD_BITS, uuid7_beside
from service.domain.money import Money
from service.domain.notes import OrderNote
from service.domain.orders import ItemFields, Order
from service.domain.users import User
from tests.support.properties import thorough

NOW = datetime(2026, 1, 2, tzinfo=UTC)
ITEM = ItemFields("bolt", "Bolt", 1, Money("EUR", Decimal(1)))


def shard(row: UUID) -> int:
    return row.int % (1 << SHARD_BITS)


@thorough
@given(st.uuids())
def test_an_id_has_the_last_bits_of_its_neighbor_and_is_a_version_7(neighbor: UUID) -> None:
    made = uuid7_beside(neighbor)
    assert SHARD_BITS == 12
    assert made.hex[-3:] == neighbor.hex[-3:]
    assert (made.version, made.variant) == (7, uuid7().variant)


def test_ids_say_the_time_at_which_they_were_made() -> None:
    before = time.time_ns() // 10**6
    milliseconds = uuid7_beside(uuid7()).int >> 80
    assert before <= milliseconds <= time.time_ns() // 10**6


def test_ids_are_unique_and_sorted_by_time_across_users() -> None:
    # Many in each millisecond, and neighbors whose last bits fall as often as they rise.
    neighbors = [uuid7() for _ in range(64)] + [UUID(int=0), UUID(int=2**128 - 1)]
    ids = [uuid7_beside(neighbor) for _ in range(3_000) for neighbor in neighbors]
    assert all(before < after for before, after in pairwise(ids))


def test_ids_of_several_processes_are_unique() -> None:
    count, processes = 20_000, 4
    program = (
        "from uuid import UUID; from service.domain.ids import uuid7_beside\n"
        f"print(*(uuid7_beside(UUID(int=0)).hex for _ in range({count})))"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(processes)
    ]
    ids = [made for process in running for made in process.communicate()[0].split()]
    assert len(ids) == len(set(ids)) == count * processes


def test_an_order_is_beside_its_user_and_a_note_beside_its_order() -> None:
    user, author = User.create({"email": "a@example.com", "username": "a"}, NOW), uuid7()
    order = Order.place(user.id, "ORD-1", {"items": [ITEM]}, NOW)
    assert shard(order.id) == shard(user.id)
    assert shard(OrderNote.write(order.id, author, "fragile", NOW).id) == shard(user.id)


def test_users_are_spread_over_all_shards() -> None:
    shards = {shard(User.create({"email": "a@example.com", "username": "a"}, NOW).id) for _ in range(40_000)}
    # With random bits, 0.2 of 4096 shards are expected to stay empty.
    assert len(shards) > 4080


def test_no_more_than_the_last_bits_are_copied() -> None:
    for neighbor in (UUID(int=0), UUID(int=2**128 - 1)):
        assert {uuid7_beside(neighbor).int >> SHARD_BITS & 1 for _ in range(200)} == {0, 1}


def test_an_id_has_all_attributes_of_one_that_the_constructor_makes() -> None:
    made = uuid7_beside(UUID(int=0))
    constructed = UUID(int=made.int)
    assert made == constructed
    assert made.is_safe is constructed.is_safe
