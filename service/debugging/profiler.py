"""A sampling profiler for the process in which it runs: which functions use the processor, and which block a thread.

Nothing runs in the functions themselves. A thread looks a hundred times a second at what the others do
(`sys._current_frames`), and the kernel tells how much processor time each has used since the last look, so idle threads
do not count. It sees what Python sees: time in C code counts for the function that has called it, and a look waits
until the code that runs lets go of Python's lock, which C code may do late. (Profilers outside the process, such as
py-spy, see more; they need the right to read its memory, which containers usually deny.)
"""

import os
import random
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Self

# How long to wait between two looks, on average; the waits differ, so that they do not keep step with timers.
_INTERVAL_SECONDS = 0.01
_SPREAD = 0.2
# Deeper stacks are cut at the outer end.
_MOST_FRAMES = 100
# Stacks above so many different ones are counted together.
_MOST_STACKS = 10_000
_OTHERS = "(other stacks)"
# How often to look whether the profile is still wanted.
_LOOK_SECONDS = 0.25
_TASKS = Path("/proc/self/task")
# The places in /proc/self/task/*/stat of the times in user and kernel mode, after the name in parentheses.
_USER_TIME, _SYSTEM_TIME = 11, 12
_STAT_BYTES = 1024
# What distinguishes threads of one kind: `password_1`, `Thread-2 (run)`.
_NUMBER = re.compile(r"[-_]\d+\b")


@dataclass(slots=True)
class Profile:
    """What was seen.

    Attributes:
        seconds: for how long.
        looks: how often.
        stacks: for each stack, the outermost function first and separated by semicolons, how many microseconds of
            processor time it has used; or of time, if that was asked for.
        threads: how many seconds of processor time each thread has used, also threads without Python, by name.
    """

    seconds: float = 0.0
    looks: int = 0
    stacks: Counter[str] = field(default_factory=Counter)
    threads: dict[str, float] = field(default_factory=dict)


def profile(seconds: float, is_wanted: Callable[[], bool], *, only: int | None = None) -> Profile:
    """Look at the threads of this process for some seconds.

    Args:
        seconds: for how long.
        is_wanted: returns whether the profile is still wanted; asked a few times a second.
        only: the identifier of the only thread to look at, of which all time counts, also when it waits; by default all
            threads, of which the time counts in which they use a processor.
    """
    names = _Names()
    result = Profile()
    began = looked = time.monotonic()
    asked = began
    with _Clocks() as clocks:
        before = clocks.of_all_threads()
        clocks.seconds_since_last_look()
        while looked - began < seconds:
            time.sleep(_INTERVAL_SECONDS * random.uniform(1 - _SPREAD, 1 + _SPREAD))  # noqa: S311 - no secret
            now = time.monotonic()
            used = {only: now - looked} if only is not None else clocks.seconds_since_last_look()
            looked = now
            result.looks += 1
            frames = sys._current_frames()
            for thread, used_seconds in used.items():
                if used_seconds and (frame := frames.get(thread)):
                    stack = names.stack(frame)
                    if stack not in result.stacks and len(result.stacks) >= _MOST_STACKS:
                        stack = _OTHERS
                    result.stacks[stack] += round(used_seconds * 1_000_000)
            # They refer to everything that the functions have.
            frames.clear()
            if now - asked > _LOOK_SECONDS:
                asked = now
                if not is_wanted():
                    break
        for thread_id, (name, total) in clocks.of_all_threads().items():
            used_by_thread = total - before.get(thread_id, (name, 0.0))[1]
            result.threads[name] = result.threads.get(name, 0.0) + used_by_thread
    result.seconds = looked - began
    return result


class _Names:
    """The names of functions, and of stacks."""

    def __init__(self) -> None:
        self._names: dict[CodeType, str] = {}

    def stack(self, frame: FrameType | None) -> str:
        """Return the functions of a frame and of those that have called it, the outermost first."""
        names: list[str] = []
        while frame is not None and len(names) < _MOST_FRAMES:
            code = frame.f_code
            name = self._names.get(code)
            if name is None:
                module = frame.f_globals.get("__name__", "")
                # Semicolons and spaces separate stacks from each other, and from their numbers.
                name = f"{module}:{code.co_qualname.replace('.<locals>', '')}".replace(";", "").replace(" ", "")
                self._names[code] = name
            names.append(name)
            frame = frame.f_back
        return ";".join(reversed(names))


class _Clocks:
    """The processor time of threads, as the kernel counts it."""

    def __init__(self) -> None:
        self._tick = 1 / os.sysconf("SC_CLK_TCK")
        # By the identifier of a Python thread: its file in /proc, and its time at the last look.
        self._files: dict[int, int] = {}
        self._seconds: dict[int, float] = {}
        self._own = threading.get_ident()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        for file in self._files.values():
            os.close(file)

    def seconds_since_last_look(self) -> dict[int, float]:
        """Return the time that each Python thread but this one has used since the last look, by its identifier."""
        used = {}
        running = {thread.ident: _native_id(thread) for thread in threading.enumerate()}
        for thread, native_id in running.items():
            if thread is None or native_id is None or thread == self._own:
                continue
            try:
                if thread not in self._files:
                    self._files[thread] = os.open(_TASKS / str(native_id) / "stat", os.O_RDONLY)
                    self._seconds[thread] = self._read(self._files[thread])[1]
                    continue
                _, now = self._read(self._files[thread])
            except OSError:
                # It has just ended.
                self._forget(thread)
                continue
            used[thread], self._seconds[thread] = now - self._seconds[thread], now
        for thread in self._files.keys() - running.keys():
            self._forget(thread)
        return used

    def of_all_threads(self) -> dict[int, tuple[str, float]]:
        """Return the name of each thread, and the time that it has used so far, by the number that the kernel gives it.

        gRPC's own threads run no Python. Threads whose names differ by a number, as in a pool, have one name.
        """
        python_names = {_native_id(thread): thread.name for thread in threading.enumerate()}
        found = {}
        for native_id, name, seconds in self._all():
            known = _NUMBER.sub("", python_names.get(native_id, f"{name} (not Python)"))
            found[native_id] = ("this profile" if native_id == threading.get_native_id() else known, seconds)
        return found

    def _all(self) -> Iterator[tuple[int, str, float]]:
        for folder in _TASKS.iterdir():
            try:
                file = os.open(folder / "stat", os.O_RDONLY)
            except OSError:
                # It has just ended.
                continue
            try:
                yield int(folder.name), *self._read(file)
            except OSError:
                # So has this.
                continue
            finally:
                os.close(file)

    def _read(self, file: int) -> tuple[str, float]:
        """Return the name that a thread has for the kernel, and the seconds that it has used."""
        text = os.pread(file, _STAT_BYTES, 0).decode(errors="replace")
        name, _, others = text.partition("(")[2].rpartition(")")
        fields = others.split()
        return name, (int(fields[_USER_TIME]) + int(fields[_SYSTEM_TIME])) * self._tick

    def _forget(self, thread: int) -> None:
        self._seconds.pop(thread, None)
        if (file := self._files.pop(thread, None)) is not None:
            os.close(file)


def _native_id(thread: threading.Thread) -> int | None:
    """Return the number that the kernel gives a thread; None before it runs."""
    # Python 3.11 forgets to renew that of the main thread in a process that was forked.
    return os.getpid() if thread is threading.main_thread() else thread.native_id
