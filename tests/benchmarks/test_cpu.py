import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from benchmarks.cpu import cpu_seconds

BURN = """
import time
while time.process_time() < 0.2:
    pass
"""
BURN_IN_A_THREAD = f"""
import threading
thread = threading.Thread(target=exec, args=({BURN!r},))
thread.start()
thread.join()
"""
BURN_IN_A_CHILD = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", {BURN!r}], check=True)
"""
BURN_IN_A_CHILD_THAT_LIVES = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {BURN!r} + "print(1, flush=True); input()"], stdout=subprocess.PIPE)
child.stdout.readline()
"""


@pytest.mark.parametrize("script", [BURN, BURN_IN_A_THREAD, BURN_IN_A_CHILD, BURN_IN_A_CHILD_THAT_LIVES])
def test_the_cpu_time_of_a_process_includes_its_threads_and_children(script: str) -> None:
    with waiting(script) as pid:
        assert cpu_seconds(pid) >= 0.2


@contextmanager
def waiting(script: str) -> Iterator[int]:
    """Run a script, and keep its process alive until the block ends."""
    command = [sys.executable, "-c", f"{script}print('done', flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "done\n"
        yield process.pid
        process.communicate("\n\n")
