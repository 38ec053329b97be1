import asyncio

import pytest
from google.rpc.code_pb2 import Code
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc import StatusCode

from service.rpc.admission import refusals
from service.rpc.admission.refusals import PUSHBACK, Refusals, next_refusal
from tests.support.logs import Log
from tests.support.waiting import eventually

GET_USER = "/commerce.users.v1.UserService/GetUser"


def test_a_refusal_says_when_to_retry_in_both_ways_and_not_all_of_them_the_same() -> None:
    times = set()
    for _ in range(100):
        refusal = next_refusal()
        assert (refusal.code, refusal.number) == (StatusCode.RESOURCE_EXHAUSTED, Code.RESOURCE_EXHAUSTED)
        trailers = dict(refusal.trailers)
        packed = trailers["grpc-status-details-bin"]
        assert isinstance(packed, bytes)
        status = Status.FromString(packed)
        info, retry = ErrorInfo(), RetryInfo()
        assert status.details[0].Unpack(info)
        assert status.details[1].Unpack(retry)
        assert (status.message, info.reason) == (refusal.message, "OVERLOADED")
        assert trailers[PUSHBACK] == str(round(retry.retry_delay.ToTimedelta().total_seconds() * 1000))
        times.add(int(str(trailers[PUSHBACK])))
    assert min(times) >= 500
    assert max(times) <= 1500
    assert len(times) > 10


async def test_refusals_beyond_the_pace_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "IN_A_TICK", 2)
    paced = Refusals()
    turns = [paced.turn(GET_USER, None, "admission") for _ in range(7)]
    assert turns[:2] == [None, None]
    waiting = [turn for turn in turns if turn]
    assert paced.waiting == len(waiting) == 5
    begin = asyncio.get_running_loop().time()
    await asyncio.gather(*waiting)
    assert asyncio.get_running_loop().time() - begin >= 2 * refusals.TICK_SECONDS
    # And after a while, others need not wait.
    await eventually(lambda: paced.turn(GET_USER, None, "admission") is None)
    paced.close()


async def test_only_so_many_refusals_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "MOST_WAITING", 5)
    paced = Refusals()
    for _ in range(100):
        paced.turn(GET_USER, None, "admission")
    assert paced.waiting == 5
    paced.close()


async def test_no_refusal_waits_after_the_server_stops() -> None:
    paced = Refusals()
    turns = [turn for _ in range(100) if (turn := paced.turn(GET_USER, None, "admission"))]
    assert turns
    paced.close()
    await asyncio.gather(*turns)
    assert paced.turn(GET_USER, None, "admission") is None


async def test_one_log_line_tells_how_many_calls_were_refused(monkeypatch: pytest.MonkeyPatch, log: Log) -> None:
    monkeypatch.setattr(refusals, "LOG_SECONDS", 0.01)
    paced = Refusals()
    for _ in range(40):
        paced.turn(GET_USER, "flood", "admission")
    paced.turn("/commerce.users.v1.UserService/UpdateUser", None, "admission")
    await eventually(lambda: log.lines(event="refused calls"))
    (line,) = log.lines(event="refused calls")
    assert line["count"] == 41
    assert line["by_method"][GET_USER] == 40
    assert line["by_caller"] == {"flood": 40}
    paced.close()
