import asyncio
import copy
import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import asyncpg
import pytest
import structlog
from grpc._cython import cygrpc  # type: ignore[attr-defined] # not in the library's stubs

from service.config import LogSettings, load
from service.observability.logs import BatchedLines, configure_logging, where_raised
from service.rpc.call_context import CallContext, enter, leave, x_request_id
from tests.support.paths import ROOT

SECRET = "hunter2"  # noqa: S105 - what must not be shown
LOGGER = "service.tests"


class VerySpecificError(Exception):
    pass


Lines = Callable[[], list[str]]
# Configures logging, and returns a function that returns the lines since its last call.
Configure = Callable[..., Lines]
AsJson = Callable[[], Callable[[], list[dict[str, Any]]]]


@pytest.fixture
def configure(capsys: pytest.CaptureFixture[str]) -> Iterator[Configure]:
    """Configure logging for one test; the test must call this, because pytest replaces the streams for each test."""
    structlog_before = structlog.get_config()
    root, service = logging.getLogger(), logging.getLogger("service")
    handlers, levels = root.handlers, (root.level, service.level)

    def configure(**settings: object) -> Lines:
        def lines() -> list[str]:
            return capsys.readouterr().err.splitlines()

        configure_logging(load(LogSettings, **settings), call_id=x_request_id)
        return lines

    yield configure
    structlog.configure(**structlog_before)
    root.handlers = handlers
    root.setLevel(levels[0])
    service.setLevel(levels[1])


@pytest.fixture
def as_json(configure: Configure) -> AsJson:
    """Log everything as JSON; returns a function that returns the lines since its last call, parsed."""

    def as_json() -> Callable[[], list[dict[str, Any]]]:
        lines = configure(log_format="json", log_level="debug")
        return lambda: [json.loads(line) for line in lines()]

    return as_json


def failing(cause: BaseException | None = None) -> None:
    raise VerySpecificError(f"no such row: {SECRET}") from cause


def raised(cause: BaseException | None = None) -> Exception:
    try:
        failing(cause)
    except VerySpecificError as error:
        return error
    raise AssertionError


def log_by_structlog(error: Exception) -> None:
    structlog.get_logger(LOGGER).error("it failed", exc_info=error)


def log_by_structlog_while_handling(error: Exception) -> None:
    try:
        raise error
    except VerySpecificError:
        structlog.get_logger(LOGGER).exception("it failed")


def log_by_logging(error: Exception) -> None:
    logging.getLogger("some.library").error("it failed", exc_info=error)


def log_by_logging_as_a_tuple(error: Exception) -> None:
    logging.getLogger("some.library").error("it failed", exc_info=(type(error), error, error.__traceback__))


def log_by_logging_with_its_text(error: Exception) -> None:
    logging.getLogger("some.library").error("it failed: %r", error, exc_info=error)


def log_by_logging_while_handling(error: Exception) -> None:
    try:
        raise error
    except VerySpecificError:
        logging.getLogger("some.library").exception("it failed")


every_way = pytest.mark.parametrize(
    "log_error",
    [
        log_by_structlog,
        log_by_structlog_while_handling,
        log_by_logging,
        log_by_logging_as_a_tuple,
        log_by_logging_while_handling,
        log_by_logging_with_its_text,
    ],
    ids=lambda log_error: log_error.__name__,
)


def test_a_line_of_the_service_is_an_object_with_time_level_and_event(as_json: AsJson) -> None:
    lines = as_json()
    structlog.get_logger(LOGGER).info("serving", port=50051)
    (line,) = lines()
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "serving", "level": "info", "port": 50051}


def test_a_line_of_a_library_is_an_object_too(as_json: AsJson) -> None:
    lines = as_json()
    logging.getLogger("some.library").warning("%s of %s\nused", 1, 2)
    (line,) = lines()
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "1 of 2\nused", "level": "warning"}


def test_the_id_of_the_call_is_on_each_of_its_lines(as_json: AsJson) -> None:
    lines = as_json()
    token = enter(CallContext("abc", {}))
    structlog.get_logger(LOGGER).info("ours")
    logging.getLogger("some.library").warning("theirs")
    leave(token)
    structlog.get_logger(LOGGER).info("after")
    assert [line.get("x_request_id") for line in lines()] == ["abc", "abc", None]


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_lines_below_the_level_are_left_out(configure: Configure, level: str) -> None:
    levels = ["debug", "info", "warning", "error"]
    lines = configure(log_format="json", log_level=level)
    for name in levels:
        getattr(structlog.get_logger(LOGGER), name)("a line")
    assert [json.loads(line)["level"] for line in lines()] == levels[levels.index(level) :]


def test_lines_logged_in_one_turn_of_the_loop_are_written_after_it(as_json: AsJson) -> None:
    lines = as_json()
    log = structlog.get_logger(LOGGER)
    seen: list[list[str]] = []

    def events() -> list[str]:
        return [line["event"] for line in lines()]

    async def talk() -> None:
        log.info("one")
        log.debug("two")
        seen.append(events())
        await asyncio.sleep(0)
        seen.append(events())
        log.info("three")
        # Immediately, and in order.
        log.warning("four")
        seen.append(events())
        log.info("last")

    asyncio.run(talk())
    assert seen == [[], ["one", "two"], ["three", "four"]]
    assert events() == ["last"]


def test_without_batching_each_line_is_written_immediately(configure: Configure) -> None:
    lines = configure(log_format="json", log_level="debug", batched_log_lines=False)

    async def talk() -> list[str]:
        structlog.get_logger(LOGGER).info("one")
        return lines()

    assert [json.loads(line)["event"] for line in asyncio.run(talk())] == ["one"]


def test_libraries_log_only_warnings_at_any_level(as_json: AsJson) -> None:
    lines = as_json()
    logging.getLogger("sqlalchemy.engine").info("SELECT %s", SECRET)
    logging.getLogger("asyncio").debug("polling")
    assert lines() == []


def test_nothing_is_logged_to_standard_output(configure: Configure, capsys: pytest.CaptureFixture[str]) -> None:
    configure(log_format="json")
    structlog.get_logger(LOGGER).warning("a line")
    assert capsys.readouterr().out == ""


def test_a_line_for_a_terminal_reads_as_text(configure: Configure) -> None:
    lines = configure(log_format="console")
    structlog.get_logger(LOGGER).info("serving", port=50051)
    (line,) = lines()
    assert "serving" in line
    assert "50051" in line
    assert not line.startswith("{")


def test_auto_is_json_without_a_terminal(configure: Configure) -> None:
    lines = configure(log_format="auto")
    structlog.get_logger(LOGGER).info("serving")
    (line,) = lines()
    assert json.loads(line)["event"] == "serving"


def test_auto_is_text_on_a_terminal(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    lines = configure(log_format="auto")
    structlog.get_logger(LOGGER).info("serving")
    (line,) = lines()
    assert not line.startswith("{")


@pytest.mark.parametrize("log_format", ["json", "console"])
@every_way
def test_an_exception_is_logged_by_its_location_only(
    configure: Configure, log_format: str, log_error: Callable[[Exception], None]
) -> None:
    lines = configure(log_format=log_format)
    log_error(raised(ValueError(SECRET)))
    (line,) = lines()
    assert "it failed" in line
    assert SECRET not in line
    assert "Error" not in line
    assert f"tests/observability/test_logs.py:{failing.__code__.co_firstlineno + 1} failing" in line


@every_way
def test_an_exception_shows_the_sqlstate_of_its_cause(as_json: AsJson, log_error: Callable[[Exception], None]) -> None:
    lines = as_json()
    log_error(raised(asyncpg.UniqueViolationError(SECRET)))
    (line,) = lines()
    assert line["sqlstate"] == "23505"
    assert set(line) == {"event", "level", "timestamp", "raised", "sqlstate"}


def test_frames_are_named_innermost_last_from_the_root_of_the_project(as_json: AsJson) -> None:
    lines = as_json()
    log_by_structlog(raised())
    (line,) = lines()
    assert [frame.partition(":")[0] for frame in line["raised"]] == ["tests/observability/test_logs.py"] * 2
    assert [frame.rpartition(" ")[2] for frame in line["raised"]] == ["raised", "failing"]


def test_frames_of_libraries_are_named_without_their_folder() -> None:
    try:
        json.loads("{")
    except ValueError as error:
        frame = where_raised(error)["raised"][-1]
    assert frame.startswith("json/decoder.py:")


def test_only_the_innermost_frames_of_a_deep_failure_are_shown() -> None:
    def fall(depth: int) -> None:
        if depth == 0:
            failing()
        fall(depth - 1)

    try:
        fall(100)
    except VerySpecificError as error:
        frames = where_raised(error)["raised"]
    assert len(frames) == 12
    assert frames[-1].endswith(" failing")


def test_of_a_failure_deep_in_a_library_our_own_frames_are_shown() -> None:
    class Uncopyable:
        def __deepcopy__(self, _memo: object) -> None:
            failing()

    nested: object = Uncopyable()
    for _ in range(20):
        nested = [nested]
    try:
        copy.deepcopy(nested)
    except VerySpecificError as error:
        frames = where_raised(error)["raised"]
    assert [frame.rpartition(" ")[2] for frame in frames[1:]] == ["__deepcopy__", "failing"]
    assert all(frame.startswith("tests/observability/test_logs.py:") for frame in frames)


def test_an_exception_that_was_never_raised_has_no_location() -> None:
    assert where_raised(VerySpecificError(SECRET)) == {"raised": []}


def test_the_sqlstate_is_found_behind_other_causes() -> None:
    behind = RuntimeError()
    behind.__context__ = asyncpg.DeadlockDetectedError(SECRET)
    assert where_raised(raised(behind))["sqlstate"] == "40P01"


def test_causes_that_go_in_a_circle_are_followed_once() -> None:
    # In another process, which can be ended by a timeout.
    program = """
from service.observability.logs import where_raised

first = ValueError()
try:
    try:
        raise KeyError from first
    except KeyError as second:
        raise first from second
except ValueError as error:
    print(len(where_raised(error)["raised"]))
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=20, check=True
    )
    assert ended.stdout == "1\n"


def test_without_an_exception_there_is_no_location(as_json: AsJson) -> None:
    lines = as_json()
    structlog.get_logger(LOGGER).warning("nothing failed", exc_info=True)
    logging.getLogger("some.library").warning("nothing failed", exc_info=True)  # noqa: LOG014 - libraries do that
    assert ["raised" in line for line in lines()] == [False, False]


def test_a_call_that_ended_while_grpc_sent_its_response_is_no_error(as_json: AsJson) -> None:
    lines = as_json()
    log_of_grpc = logging.getLogger("grpc._cython.cygrpc")
    for kind in (cygrpc.ExecuteBatchError, cygrpc.UsageError):
        log_of_grpc.error("raised in core", exc_info=kind("the call has ended"))
    # Any other failure of gRPC is one.
    (line,) = lines()
    assert (line["event"], line["level"]) == ("raised in core", "error")


def test_a_failure_that_asyncio_logs_shows_nothing_of_its_exception(as_json: AsJson) -> None:
    lines = as_json()
    loop = asyncio.new_event_loop()
    future = loop.create_future()
    future.set_exception(raised())
    # As the loop does for a failed task that was never awaited.
    loop.call_exception_handler(
        {"message": "exception was never retrieved", "exception": future.exception(), "future": future}
    )
    loop.close()
    (line,) = lines()
    assert "exception was never retrieved" in line["event"]
    assert SECRET not in json.dumps(line)
    assert line["raised"][-1].endswith(" failing")


WORKERS_LOG = """
import asyncio, sys
from service.config import LogSettings, load
from service.observability.logs import configure_logging
import structlog
configure_logging(load(LogSettings, log_format="json"), worker=int(sys.argv[1]))
log = structlog.get_logger()

async def main():
    for turn in range(200):
        # Together, they are many times as long as the kernel writes to a pipe without mixing.
        for line in range(100):
            log.info("line", number=100 * turn + line, text="é" * 60)
        await asyncio.sleep(0)

asyncio.run(main())
"""


def test_lines_of_workers_are_not_mixed_in_a_pipe() -> None:
    workers = (1, 2, 3)
    reading, writing = os.pipe()
    processes = [
        subprocess.Popen([sys.executable, "-c", WORKERS_LOG, str(number)], cwd=ROOT, stderr=writing)
        for number in workers
    ]
    os.close(writing)
    with open(reading, "rb") as pipe:  # noqa: PTH123 - a descriptor
        lines = [json.loads(line) for line in pipe]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert {line["text"] for line in lines} == {"é" * 60}
    for worker in workers:
        assert [line["number"] for line in lines if line["worker"] == worker] == list(range(20_000))


def test_a_line_that_is_longer_than_a_pipe_takes_is_one_write() -> None:
    lines = BatchedLines()
    lines.stream, lines.max_bytes = io.StringIO(), 10
    writes: list[str] = []
    lines.stream.write = writes.append  # type: ignore[method-assign,assignment]
    for line in ("1", "2" * 20, "3" * 9, "4444", "55555"):
        lines._waiting.append(line)  # noqa: SLF001 - as within one turn of a loop
    lines.flush()
    assert writes == ["1\n", f"{'2' * 20}\n", f"{'3' * 9}\n", "4444\n", "55555\n"]
    assert "".join(writes).splitlines() == ["1", "2" * 20, "3" * 9, "4444", "55555"]
