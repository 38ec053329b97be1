import os
import subprocess
import sys

import pytest

from tests.support.paths import ROOT

# In a process of its own, because the policy belongs to the process that runs the tests.
SCRIPT = """
import os, threading
from service.rpc.transport.scheduling import AdaptiveScheduling

def policies():
    return {os.sched_getscheduler(int(thread)) for thread in os.listdir("/proc/self/task")}

os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
end = threading.Event()
threading.Thread(target=end.wait).start()
polling = threading.Thread(target=end.wait, name="Thread-2 (_poll_wrapper)")
polling.start()
used = now = 0.0
scheduling = AdaptiveScheduling(lambda: used, lambda: now)
nice = os.getpriority(os.PRIO_PROCESS, 0)
for share in (0.1, 0.9, 1.0, *8 * (0.5,), 0.8):
    used, now = used + share * 0.25, now + 0.25
    scheduling.look()
    print(*policies(), os.getpriority(os.PRIO_PROCESS, polling.native_id) - nice)

end.set()
"""


def may_raise_priority() -> bool:
    """Return whether a process may raise its priority again after it has lowered it."""
    nice = "import os; os.nice(1); os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, 0) - 1)"
    return subprocess.run([sys.executable, "-c", nice], stderr=subprocess.DEVNULL, check=False).returncode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has these policies")
def test_all_threads_are_batch_threads_until_the_event_loop_has_used_little_for_two_seconds() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'client'}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.stderr == ""
    # Where a priority that was lowered stays low, it is tried once.
    lowered, restored = ("10", "0") if may_raise_priority() else ("1", "1")
    batch, other = f"{os.SCHED_BATCH} {lowered}", f"{os.SCHED_OTHER} {restored}"
    assert ended.stdout.splitlines() == [f"{os.SCHED_OTHER} 0", *9 * [batch], other, batch]
