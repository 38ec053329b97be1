"""Logging in tests, and what was logged."""

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
    """Log all there is as JSON."""
    configure_logging(load(LogSettings, log_format="json", log_level="debug"), call_id=x_request_id)


class Log:
    """What was written to standard error, of which every line is JSON."""

    def __init__(self, output: io.StringIO) -> None:
        self.output = output

    def lines(self, **fields: object) -> list[dict[str, Any]]:
        """Return the lines that have these fields."""
        lines = [json.loads(line) for line in self.output.getvalue().splitlines()]
        return [line for line in lines if fields.items() <= line.items()]

    async def line(self, **fields: object) -> dict[str, Any]:
        """Return the line that has these fields, once it is there: a status is sent before its line is written."""
        found: list[dict[str, Any]] = await eventually(lambda: self.lines(**fields))
        [line] = found
        return line


@contextmanager
def logged() -> Iterator[Log]:
    """Collect what is logged while the block runs, all there is."""
    with redirect_stderr(io.StringIO()) as output:
        log_everything()
        yield Log(output)
    log_everything()
