"""The policy in force, read again when its file changes."""

import asyncio
import time
from pathlib import Path

import structlog

from service.rpc.identity.policy_parsing import PolicyError, read_policy, suspicions
from service.runtime.file_version import file_version

# How often the file is looked at.
POLL_SECONDS = 1.0

log = structlog.get_logger()


class PolicyFile:
    """Reads a policy file at start, and again when it changes. A file that cannot be used changes nothing.

    Args:
        file: the policy file; it may be a symbolic link that is replaced, as Kubernetes does.

    Attributes:
        current: the policy in force: the last one that could be used.
        problem: why the file cannot be used now; None if it is in force.
        loaded_at: when the policy in force was read, in seconds since 1970.

    Raises:
        PolicyError: the file cannot be used at start.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._seen = file_version(file)
        self.current = read_policy(file)
        self.loaded_at = time.time()
        self.problem: str | None = None
        self._log_policy("policy in force")

    async def watch(self) -> None:
        """Look at the file every second, until cancelled."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            # In a thread, because a file system may be slow to answer, and a large file is slow to parse.
            await asyncio.to_thread(self.reload)

    def reload(self) -> None:
        """Read the file again if it has changed since it was last looked at."""
        version = file_version(self._file)
        if version == self._seen:
            return
        # Also if it cannot be used, so that a problem is logged once.
        self._seen = version
        try:
            self.current = read_policy(self._file)
        except PolicyError as error:
            self.problem = str(error)
            log.error(  # noqa: TRY400 - the problems say everything
                "policy not changed: its file cannot be used", problems=list(error.problems)
            )
        else:
            self.problem = None
            self.loaded_at = time.time()
            self._log_policy("policy changed")

    def _log_policy(self, event: str) -> None:
        policy = self.current
        log.info(event, file=str(self._file), roles=len(policy.roles), identities=len(policy.identities))
        for suspicion in suspicions(policy):
            log.warning("the policy may be wrong", file=str(self._file), key=suspicion)
