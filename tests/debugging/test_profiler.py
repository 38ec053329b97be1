"""The sampling profiler: it names what uses the processor, and ends by itself."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from service.debugging import profiler
from service.debugging.profiler import Profile, profile

OWN = "test_profiler:"


def compute(ended: threading.Event) -> None:
    while not ended.is_set():
        sum(range(1000))


def sleep(ended: threading.Event) -> None:
    ended.wait(20)


@contextmanager
def threads() -> Iterator[dict[str, threading.Thread]]:
    """Run a thread that computes, and one that sleeps, until the block ends."""
    ended = threading.Event()
    running = {
        function.__name__: threading.Thread(target=function, args=(ended,), name=f"{function.__name__}-1")
        for function in (compute, sleep)
    }
    for thread in running.values():
        thread.start()
    try:
        yield running
    finally:
        ended.set()
        for thread in running.values():
            thread.join()


def time_in(found: Profile, function: str) -> int:
    return sum(used for stack, used in found.stacks.items() if function in stack)


def always() -> bool:
    return True


def test_the_function_that_computes_is_named_and_the_one_that_sleeps_is_not() -> None:
    with threads():
        found = profile(0.5, always)
    assert time_in(found, f"{OWN}compute") > 0
    assert time_in(found, f"{OWN}sleep") == 0
    (stack, _), *_ = found.stacks.most_common(1)
    assert stack.startswith("threading:Thread._bootstrap;")
    assert f"{OWN}compute" in stack
    # Without the numbers of threads, and with the one that looks.
    assert found.threads["compute"] > found.threads["sleep"]
    assert "this profile" in found.threads
    assert found.looks > 5


def test_all_time_of_one_thread_counts_if_that_is_asked_for() -> None:
    with threads() as running:
        found = profile(0.3, always, only=running["sleep"].ident)
    assert time_in(found, f"{OWN}sleep") == sum(found.stacks.values()) > 0


def test_a_profile_that_is_not_wanted_any_longer_ends() -> None:
    began = time.monotonic()
    assert profile(60, lambda: False).seconds < 30
    assert time.monotonic() - began < 30


def test_the_number_of_different_stacks_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiler, "_MOST_STACKS", 0)
    with threads():
        found = profile(0.3, always)
    assert set(found.stacks) == {"(other stacks)"}


def test_a_thread_that_ends_meanwhile_is_no_problem() -> None:
    ended = threading.Event()
    starting = threading.Thread(target=compute, args=(ended,))
    starting.start()
    threading.Timer(0.1, ended.set).start()
    assert profile(0.4, always).looks > 5
    assert not starting.is_alive()
