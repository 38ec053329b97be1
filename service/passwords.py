"""Password hashing with argon2id, in a few threads with a bounded queue.

On the event loop, hashing one password would block all other calls; more threads would only cost memory. The parameters
follow the OWASP Password Storage Cheat Sheet.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError

from service.application.ports.errors import Overloaded
from service.config import PasswordSettings
from service.domain.text import composed

T = TypeVar("T")


class Argon2Passwords:
    """Hashes and verifies passwords (`service.application.ports.passwords.Passwords`); a process needs only one."""

    def __init__(self, settings: PasswordSettings) -> None:
        self._hasher = PasswordHasher(
            time_cost=settings.argon2_time_cost,
            memory_cost=settings.argon2_memory_kib,
            parallelism=settings.argon2_parallelism,
        )
        self._executor = ThreadPoolExecutor(settings.password_threads, thread_name_prefix="password")
        self._limit = settings.password_threads + settings.password_queue_size
        self._waiting = 0
        # Verified when the user does not exist, so that the response takes as long as for a wrong password.
        self._dummy_hash = self._hasher.hash("no user has this password")

    async def hash(self, password: str) -> str:
        """Return a salted hash of the password in the form NFKC; raises Overloaded."""
        normal = composed(password)
        return await self._run(lambda: self._hasher.hash(normal))

    async def verify(self, password: str, password_hash: str | None, *, as_typed: bool = False) -> bool:
        """Return whether the password has this hash; for None, False after an equally long time. Raises Overloaded."""
        form = password if as_typed else composed(password)

        def verify() -> bool:
            try:
                self._hasher.verify(password_hash or self._dummy_hash, form)
            except VerifyMismatchError:
                return False
            return password_hash is not None

        return await self._run(verify)

    def needs_rehash(self, password_hash: str) -> bool:
        """Return whether the hash was made with parameters other than the current settings."""
        return self._hasher.check_needs_rehash(password_hash)

    def close(self) -> None:
        """End the threads after their queued work, without waiting for it."""
        self._executor.shutdown(wait=False)

    async def _run(self, work: Callable[[], T]) -> T:
        if self._waiting >= self._limit:
            raise Overloaded
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, work)
        finally:
            self._waiting -= 1
