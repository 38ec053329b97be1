"""Run several processes of this service on one port until SIGTERM: `python -m benchmarks.processes COUNT`."""

import os
import signal
import subprocess
import sys


def main(count: int) -> None:
    """Start the processes, forward SIGTERM to them, and exit when all of them have exited."""
    environment = {**os.environ, "COMMERCE_REUSE_PORT": "true"}
    command = [sys.executable, "-m", "service", "serve"]
    processes = [subprocess.Popen(command, env=environment) for _ in range(count)]  # noqa: S603 - our own command

    def end(number: int, _frame: object) -> None:
        for process in processes:
            process.send_signal(number)

    signal.signal(signal.SIGTERM, end)
    sys.exit(max(process.wait() for process in processes))


if __name__ == "__main__":
    main(int(sys.argv[1]))
