import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

import service
from service.application.ports.unit_of_work import UnitOfWork
from service.rpc.call_context import (
    CallContext,
    current_call,
    current_caller,
    current_unit_of_work,
    enter,
    leave,
    prefers_replica,
    x_request_id,
)
from service.rpc.identity.caller import ANONYMOUS, Caller

ADA = Caller("key:ada")
UOW = cast("UnitOfWork", object())


async def in_a_call(work: Any) -> Any:
    """Return what a coroutine function returns inside a call."""
    token = enter(CallContext("call-1", {"key": "value"}))
    try:
        return await work()
    finally:
        leave(token)


async def test_outside_a_call_there_is_no_context() -> None:
    assert x_request_id() is None
    assert prefers_replica() is False
    with pytest.raises(LookupError, match="AccessLogInterceptor"):
        current_call()
    with pytest.raises(LookupError, match="AccessLogInterceptor"):
        current_unit_of_work()


async def test_a_call_has_its_values_until_it_ends() -> None:
    async def work() -> None:
        assert x_request_id() == "call-1"
        assert current_call().metadata == {"key": "value"}
        current_call().prefers_replica = True
        assert prefers_replica()

    await in_a_call(work)
    assert x_request_id() is None
    assert not prefers_replica()


async def test_a_unit_of_work_is_that_of_the_call() -> None:
    async def work() -> None:
        with pytest.raises(LookupError, match="TransactionInterceptor"):
            current_unit_of_work()
        current_call().unit_of_work = UOW
        assert current_unit_of_work() is UOW

    await in_a_call(work)


async def test_a_task_that_outlives_the_call_keeps_its_context() -> None:
    go_on = asyncio.Event()

    async def write() -> tuple[str | None, UnitOfWork]:
        await go_on.wait()
        current_call().unit_of_work = UOW
        return x_request_id(), current_unit_of_work()

    async def work() -> Any:
        return asyncio.create_task(write())

    writing = await in_a_call(work)
    assert x_request_id() is None
    go_on.set()
    assert await writing == ("call-1", UOW)


def test_the_service_has_no_other_context_variable() -> None:
    root = Path(str(service.__file__)).parent
    found = [path.relative_to(root) for path in root.rglob("*.py") if "ContextVar(" in path.read_text("utf-8")]
    assert [str(path) for path in found] == ["rpc/call_context.py"]


async def test_a_call_is_anonymous_until_its_caller_is_known() -> None:
    async def work() -> None:
        assert current_caller() is ANONYMOUS
        current_call().caller = ADA
        assert current_caller() is ADA

    await in_a_call(work)
    assert current_caller() is ANONYMOUS
