from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from service.rpc.messages.values import rows_in_a_turn


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [([], 1), ([100], 1), ([100] * 50, 50), ([1024] * 1000, 64), ([1024 * 1024] * 3, 1), ([0, 1024 * 1024], 1)],
)
def test_so_many_rows_of_a_page_are_built_in_one_turn(sizes: Sequence[int], expected: int) -> None:
    rows: list[Any] = [SimpleNamespace(row_bytes=size) for size in sizes]
    assert rows_in_a_turn(rows) == expected
