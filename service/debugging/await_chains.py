"""Follows what a task waits for: from coroutine to coroutine, and from one task to the task that it waits for.

That is what a traceback is for a thread. Python 3.14 has it for tasks (`asyncio.capture_call_graph`), but not across
futures that another task completes, as it is done here by shielded tasks and by batches.
"""

import asyncio
import gc
from collections.abc import Callable, Iterable, Mapping
from contextvars import Context
from dataclasses import dataclass
from types import AsyncGeneratorType, CodeType, CoroutineType, FrameType, GeneratorType
from typing import Any, NamedTuple

from sqlalchemy.util.concurrency import greenlet_spawn

from service.db.connections.batching import Batcher
from service.runtime.shielded_tasks import ShieldedTasks

# A longer chain is cut.
_MOST_STEPS = 200
# The attributes of coroutines and generators, also those of Cython, with what they wait for, and with their frame.
_AWAITED = ("cr_await", "ag_await", "gi_yieldfrom")
_FRAMES = {CoroutineType: "cr_frame", AsyncGeneratorType: "ag_frame", GeneratorType: "gi_frame"}
# What is between a coroutine and what it waits for, by the names of types that have no other attributes.
_BETWEEN = frozenset(
    {"FutureIter", "coroutine_wrapper", "async_generator_asend", "async_generator_athrow", "anext_awaitable"}
)

_Task = asyncio.Task[Any]
_Future = asyncio.Future[Any]


class Step(NamedTuple):
    """A function that waits for the next step, or runs.

    Attributes:
        name: its qualified name.
        frame: its frame; None for functions that are not written in Python.
    """

    name: str
    frame: FrameType | None


@dataclass(frozen=True, slots=True)
class Chain:
    """What a task does.

    Attributes:
        steps: the functions, the outermost first.
        tasks: the task, and those that it waits for, one for the other.
        is_ready: whether it waits for nothing: it runs, or does as soon as the event loop has time for it.
    """

    steps: list[Step]
    tasks: list[_Task]
    is_ready: bool


def _batch_futures(values: Mapping[str, Any]) -> Iterable[_Future]:
    return (waiting[1] for waiting in values["batch"])


# The functions of tasks that complete futures of others, and which these are, given the function's local variables.
_COMPLETING: Mapping[CodeType, Callable[[Mapping[str, Any]], Iterable[_Future]]] = {
    ShieldedTasks._deliver.__code__: lambda values: (values["result"],),
    Batcher._run_batch.__code__: _batch_futures,
}


def completed_by(tasks: Iterable[_Task]) -> dict[_Future, _Task]:
    """Return which of these tasks completes a future of another one."""
    completing: dict[_Future, _Task] = {}
    for task in tasks:
        coroutine = task.get_coro()
        frame = coroutine.cr_frame if isinstance(coroutine, CoroutineType) else None
        if frame and (futures := _COMPLETING.get(frame.f_code)):
            completing.update(dict.fromkeys(futures(frame.f_locals), task))
    return completing


def follow(task: _Task, completing: Mapping[_Future, _Task]) -> Chain:
    """Return what a task does.

    Args:
        task: the task.
        completing: which task completes a future (`completed_by`).
    """
    steps: list[Step] = []
    tasks: list[_Task] = []
    seen: set[int] = set()
    awaited: object = task
    last: object = task
    while awaited is not None and id(awaited) not in seen and len(steps) < _MOST_STEPS:
        last = awaited
        seen.add(id(awaited))
        if isinstance(awaited, asyncio.Task):
            tasks.append(awaited)
            awaited = awaited.get_coro()
        elif isinstance(awaited, asyncio.Future):
            awaited = completing.get(awaited) or _unfinished(getattr(awaited, "_children", ()))
        else:
            awaited = _passed(awaited, steps)
    return Chain(steps, tasks, is_ready=not isinstance(last, asyncio.Future) or last.done())


def context_of(task: _Task) -> Context | None:
    """Return the context of a task."""
    # Python 3.11 has no `Task.get_context`.
    return next((found for found in gc.get_referents(task) if isinstance(found, Context)), None)


def _passed(awaited: object, steps: list[Step]) -> object:
    """Add the steps of a coroutine or generator, and return what it waits for."""
    frame: FrameType | None = None
    for kind, attribute in _FRAMES.items():
        if isinstance(awaited, kind):
            frame = getattr(awaited, attribute)
    name = frame.f_code.co_qualname if frame else getattr(awaited, "__qualname__", None)
    if isinstance(name, str):
        steps.append(Step(name, frame))
    if frame and frame.f_code is greenlet_spawn.__code__:
        _add_frames_in_greenlet(frame.f_locals.get("context"), steps)
    if frame and frame.f_code.co_name == "_wait" and frame.f_globals.get("__name__") == "asyncio.tasks":
        # asyncio.wait waits for these.
        return _unfinished(frame.f_locals["fs"])
    for attribute in _AWAITED:
        if hasattr(awaited, attribute):
            return getattr(awaited, attribute)
    return next(filter(_is_awaited, gc.get_referents(awaited)), None)


def _is_awaited(found: object) -> bool:
    return (
        isinstance(found, asyncio.Future)
        or type(found).__name__ in _BETWEEN
        or any(hasattr(type(found), attribute) for attribute in _AWAITED)
    )


def _add_frames_in_greenlet(greenlet: Any, steps: list[Step]) -> None:  # noqa: ANN401 - has no types
    """Add the functions that SQLAlchemy runs in a greenlet, which waits for a coroutine."""
    inside: list[Step] = []
    frame: FrameType | None = getattr(greenlet, "gr_frame", None)
    while frame is not None and len(inside) < _MOST_STEPS:
        inside.append(Step(frame.f_code.co_qualname, frame))
        frame = frame.f_back
    steps.extend(reversed(inside))


def _unfinished(futures: Iterable[_Future]) -> _Future | None:
    """Return the first of several futures that is waited for, such as those of `asyncio.gather`."""
    return next((future for future in futures if not future.done()), None)
