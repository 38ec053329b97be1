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
used = now = 0.0
scheduling = AdaptiveScheduling(lambda: used, lambda: now)
seen = []
for share in (0.1, 0.9, 1.5, 0.5, 0.7):
    used, now = used + share * 0.25, now + 0.25
    scheduling.look()
    seen.append(policies())
print(seen)

end.set()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has these policies")
def test_all_threads_are_batch_threads_only_while_the_process_uses_most_of_a_processor() -> None:
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
    batch, other = {os.SCHED_BATCH}, {os.SCHED_OTHER}
    assert ended.stdout == f"{[other, batch, batch, other, batch]}\n"
