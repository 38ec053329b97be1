"""The commands of documents, which tests run in a shell."""

import asyncio
import os
import re
import signal
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from service.devtools.postgres_programs import find_bin_dir
from tests.support.copies import can_copy
from tests.support.paths import ROOT
from tests.support.shell_commands import commands_in_copies

_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
# None of the commands waits for longer, unless what it waits for never comes.
_SECONDS = 120


class Shell:
    """Runs commands with bash, each time a new one, in one folder and with the same variables.

    PostgreSQL's programs are those of the embedded one, the newest.

    Args:
        folder: where commands run; it is created.
        copies: whether `commerce` may be a copy of a process, which starts sooner.
    """

    def __init__(self, folder: Path, *, copies: bool = True) -> None:
        self._copies = copies and can_copy()
        self.folder = folder
        self.folder.mkdir(exist_ok=True)
        # Nothing of the caller's own settings for PostgreSQL and for the service.
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(("COMMERCE_", "PG", "DATABASE_"))
        }
        path = os.pathsep.join([str(find_bin_dir()), str(Path(sys.executable).parent), inherited["PATH"]])
        self.environment = {**inherited, "PATH": path}

    def set(self, **variables: str) -> None:
        """Set variables for all later commands."""
        self.environment |= variables

    async def run(self, commands: str) -> str:
        """Return what the commands print; all of them must succeed."""
        if not self._copies:
            return await self._run(commands, self.environment)
        with commands_in_copies() as programs:
            return await self._run(commands, {**self.environment, "PATH": f"{programs}:{self.environment['PATH']}"})

    async def _run(self, commands: str, environment: Mapping[str, str]) -> str:
        process = await asyncio.create_subprocess_exec(
            # The pages pause for a second before they look again.
            *("bash", "-euo", "pipefail", "-c", f"sleep() {{ command sleep 0.05; }}\n{commands}"),
            cwd=self.folder,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(_SECONDS):
                stdout, stderr = await process.communicate()
        except TimeoutError:
            # With all that it has started.
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            raise AssertionError(f"did not end in {_SECONDS} s: {commands}") from None
        assert process.returncode == 0, f"{commands}\n{stdout.decode()}{stderr.decode()}"
        return stdout.decode()


class Page:
    """The blocks of commands (```sh) of a document, by the headings above them.

    Attributes:
        unused: the headings whose commands no test has asked for.
    """

    def __init__(self, document: str) -> None:
        text = (ROOT / document).read_text()
        # Comments in blocks look like headings.
        fences = list(_FENCE.finditer(text))
        headings = [
            found
            for found in _HEADING.finditer(text)
            if not any(fence.start() < found.start() < fence.end() for fence in fences)
        ]
        self._blocks: defaultdict[str, list[str]] = defaultdict(list)
        for fence in fences:
            if fence[2] == "sh":
                above = [heading[1] for heading in headings if heading.start() < fence.start()]
                self._blocks[above[-1]].append(re.sub(rf"^{fence[1]}", "", fence[3], flags=re.MULTILINE))
        self.unused = set(self._blocks)

    def commands(self, heading: str) -> Sequence[str]:
        """Return the blocks of commands below a heading."""
        assert heading in self._blocks, f"no commands below {heading!r}"
        self.unused.discard(heading)
        return self._blocks[heading]

    async def run(self, heading: str, shell: Shell) -> str:
        """Run all blocks below a heading, and return what they print."""
        return "".join([await shell.run(block) for block in self.commands(heading)])
