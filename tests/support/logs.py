"""Logging in tests, and the lines that were logged."""

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Any

from service.config import LogSettings, load
from service.observability.logs import configure_logging
from service.rpc.call_context import x_request_id
from tests.support.waiting import eventually


def log_everything() -> None:
    """Log everything as JSON, debug lines too."""
    configure_logging(load(LogSettings, log_format="json", log_level="debug"), call_id=x_request_id)


class Log:
    """The log lines written to standard error, each a JSON object."""

    def __init__(self, output: io.StringIO) -> None:
        self.output = output

    def lines(self, **fields: object) -> list[dict[str, Any]]:
        """Return the lines that have these fields."""
        lines = [json.loads(line) for line in self.output.getvalue().splitlines()]
        return [line for line in lines if fields.items() <= line.items()]

    async def line(self, **fields: object) -> dict[str, Any]:
        """Wait for the line with these fields: the server sends a status before it logs the call."""
        found: list[dict[str, Any]] = await eventually(lambda: self.lines(**fields))
        [line] = found
        return line


@contextmanager
def logged() -> Iterator[Log]:
    """Collect everything that is logged while the block runs."""
    with redirect_stderr(io.StringIO()) as output:
        log_everything()
        yield Log(output)
    log_everything()
