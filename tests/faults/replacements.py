"""Functions of the service without the defence that an experiment tests (`tests.faults.without`)."""

import asyncio
from collections.abc import Coroutine, Iterable
from datetime import datetime
from typing import Any, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError

T = TypeVar("T")


async def run_unshielded(_tasks: object, work: Coroutine[Any, Any, T]) -> T:
    """Do the work in the task of the call, instead of `ShieldedTasks.run`: its cancellation reaches the statements."""
    return await work


async def result_unshielded(
    _tasks: object,
    task: asyncio.Task[T],
    *,
    timeout_seconds: float | None = None,
    timeout_error: type[Exception] = TimeoutError,
) -> T:
    """Wait for a task, which is cancelled together with the call, instead of `ShieldedTasks.result`."""
    try:
        async with asyncio.timeout(timeout_seconds):
            return await task
    except TimeoutError as error:
        raise timeout_error from error


def changed_by_the_clock(entity: Any, event_type: str, now: datetime, changes: Iterable[Any] = ()) -> None:
    """Change an entity at the time of this server, even if that is before its last change: see `Entity.changed`."""
    entity.version += 1
    entity.update_time = now
    entity.record(event_type, now, changes)


async def verify_known_only(
    _passwords: object, password: str, password_hash: str | None, *, as_typed: bool = False
) -> bool:
    """Answer for an unknown user without hashing, instead of `Argon2Passwords.verify`."""
    if password_hash is None or as_typed:
        return False
    try:
        return await asyncio.to_thread(PasswordHasher().verify, password_hash, password)
    except VerifyMismatchError:
        return False
