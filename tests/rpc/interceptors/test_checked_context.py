from typing import Any, cast

import pytest

from service.rpc.interceptors.checked_context import CheckedContext


class Written:
    """A context that keeps what is written."""

    code = "of the context"

    def __init__(self) -> None:
        self.responses: list[bytes] = []

    async def write(self, response: bytes) -> None:
        self.responses.append(response)


async def refuse(response: Any) -> None:
    if response == b"no":
        raise PermissionError


async def test_a_response_is_checked_before_it_is_sent() -> None:
    context = Written()
    checked = CheckedContext(cast("Any", context), refuse)
    await checked.write(b"yes")
    with pytest.raises(PermissionError):
        await checked.write(b"no")
    assert context.responses == [b"yes"]
    assert checked.code == "of the context"
