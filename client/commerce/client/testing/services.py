"""Real services for tests: servers on a real PostgreSQL, each with data of its own. The fixtures of pytest use this."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, distribution
from threading import Lock
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Mapping

# A server starts in less than a tenth of a second, and the first one with PostgreSQL in less than two seconds.
_PATIENCE_SECONDS = 60.0
_MAX_LOG_BYTES = 100_000
# What the caller's own program reads, or another server. The servers of tests have only the settings of `Services`.
_PREFIX = "COMMERCE_"
_DATABASE = "DATABASE_URL"


class ServiceError(Exception):
    """The service could not be started, or has ended. The message says why, and ends with the end of its log."""


class Services:
    """Runs real servers on a real PostgreSQL, in a process of their own, until it is closed.

    The process takes about a second to start; the constructor does not wait for it, and the first `open` does. It ends
    with this process, however this one ends, and leaves no file behind. It needs Linux or macOS, and the distribution
    `commerce-service` with a PostgreSQL (`pip install 'commerce-client[testing]'`).

    Safe for use by several threads, and not by a forked process.

    Args:
        settings: of all servers, as environment variables: `{"COMMERCE_WATCH_CHECKPOINT_INTERVAL": "1"}`. The process
            inherits no `COMMERCE_` variable. It sets the address, the port and the database of each server itself.

    Raises:
        ServiceError: the service is not installed.

    Example:
        with Services() as services, services.open() as service, Client(service.address) as client:
            user = client.users.create(...)
    """

    def __init__(self, settings: Mapping[str, str] = MappingProxyType({})) -> None:
        _require_service()
        environment = {
            name: value for name, value in os.environ.items() if name != _DATABASE and not name.startswith(_PREFIX)
        }
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        self._lock = Lock()
        self._answers = b""
        self._is_ready = False
        self._process = process = subprocess.Popen(
            # -P: a folder named like the package of the service, in the current directory, is not imported.
            [sys.executable, "-P", "-m", "service", "serve-tests"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**environment, **settings},
            # Ctrl-C reaches only the tests, which then close this.
            start_new_session=True,
        )
        if process.stdin is None or process.stdout is None:  # pragma: no cover - for the type checker
            raise AssertionError
        self._stdin, self._stdout = process.stdin, process.stdout

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    def open(self) -> Service:
        """Run a server with an empty database.

        Raises:
            ServiceError: a setting is wrong, or the service has failed.
        """
        answer = self.ask(do="open")
        return Service(self, answer["id"], answer["port"])

    def ask(self, **request: object) -> dict[str, Any]:
        """Send a request to the process, and return its answer; raises ServiceError."""
        with self._lock:
            if self._log.closed:
                raise ServiceError("the services are closed")
            if not self._is_ready:
                self._answer()
                self._is_ready = True
            self._send(request)
            answer = self._answer()
        if problem := answer.get("error"):
            raise ServiceError(f"the service could not be started: {problem}")
        return answer

    def _send(self, request: object) -> None:
        try:
            self._stdin.write(json.dumps(request).encode() + b"\n")
            self._stdin.flush()
        except BrokenPipeError as error:
            raise self._ended() from error

    def _answer(self) -> dict[str, Any]:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while b"\n" not in self._answers:
            ready, _, _ = select.select([self._stdout], [], [], max(deadline - time.monotonic(), 0))
            if not ready:
                raise ServiceError(f"the service has not answered in {_PATIENCE_SECONDS:.0f} s:\n{self.log()}")
            if not (received := os.read(self._stdout.fileno(), 65536)):
                raise self._ended()
            self._answers += received
        line, _, self._answers = self._answers.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _ended(self) -> ServiceError:
        status = self._process.wait()
        return ServiceError(f"the service ended with status {status}:\n{self.log()}")

    def log_size(self) -> int:
        """Return how much the servers have logged so far, in bytes."""
        return 0 if self._log.closed else os.fstat(self._log.fileno()).st_size

    def log(self, start: int = 0) -> str:
        """Return what the servers have logged since it had `start` bytes: at most the last 100 kB; none when closed."""
        end = self.log_size()
        if end <= start:
            return ""
        start = max(start, end - _MAX_LOG_BYTES)
        return os.pread(self._log.fileno(), end - start, start).decode(errors="replace")

    def close(self) -> None:
        """Stop all servers and PostgreSQL, delete all data, and wait until that is done.

        Raises:
            ServiceError: the process failed.
        """
        if self._log.closed:
            return
        try:
            self._stdin.close()
            try:
                status = self._process.wait(_PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                status = self._process.wait()
            self._stdout.close()
            if status != 0:
                raise self._ended()
        finally:
            self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class Service:
    """A running server with a database that only it uses.

    Attributes:
        port: its TCP port.
        address: where clients reach it, `127.0.0.1:PORT`; without TLS.
    """

    def __init__(self, services: Services, number: int, port: int) -> None:
        self._services = services
        self._number = number
        self._log_start = services.log_size()
        self._is_closed = False
        self.port = port
        self.address = f"127.0.0.1:{port}"

    def stop(self) -> None:
        """Stop the server: calls that run are cancelled, and no further ones are accepted. The data stays."""
        self._services.ask(do="stop", id=self._number)

    def start(self) -> None:
        """Start the server again after `stop`, on the same port and with the same data.

        Raises:
            ServiceError: another program has taken the port.
        """
        self._services.ask(do="start", id=self._number)

    def log(self) -> str:
        """Return what the server, and others of the same `Services`, have logged since it was opened: JSON lines."""
        return self._services.log(self._log_start)

    def close(self) -> None:
        """Stop the server, and delete its data, unless that is done."""
        if self._is_closed:
            return
        self._is_closed = True
        self._services.ask(do="close", id=self._number)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _require_service() -> None:
    try:
        distribution("commerce-service")
    except PackageNotFoundError:
        raise ServiceError(
            "tests run the service itself, whose distribution commerce-service is not installed in this environment:"
            " pip install 'commerce-client[testing]', or install it from its source"
        ) from None
