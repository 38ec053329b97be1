"""Build the load program, and run it against a server."""

import json
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import click

from benchmarks.workloads import Call

_SOURCES = Path(__file__).resolve().parent / "load"


class CannotBuildError(click.ClickException):
    """A tool or header that the load program is built with is not installed."""


class BadReplyError(click.ClickException):
    """A server sent a wrong reply, or none."""


@dataclass(frozen=True)
class Load:
    """How to call: each time a reply arrives or, with a rate, at Poisson times with this many calls per second.

    The server may refuse calls for load if `may_refuse`. With a deadline, in seconds, calls may expire.
    """

    connections: int
    streams: int
    rate: float | None = None
    may_refuse: bool = False
    deadline: float | None = None

    def arguments(self) -> list[str]:
        """Return the arguments of the load program."""
        arguments = ["--connections", str(self.connections), "--streams", str(self.streams)]
        arguments += ["--rate", str(self.rate)] if self.rate else []
        arguments += ["--timeout", str(self.deadline)] if self.deadline else []
        return arguments + (["--refusals"] if self.may_refuse else [])


@dataclass(frozen=True)
class Outcome:
    """Duration of a run without bad replies, its answers with their latencies, and what was refused or has expired."""

    seconds: float
    p50_ms: float
    p99_ms: float
    answers: int
    refused: int
    expired: int


def build(folder: Path) -> Path:
    """Return the load program, compiled into `folder`.

    Raises:
        CannotBuildError: gcc, or the headers of nghttp2 or OpenSSL, are not installed.

    """
    if shutil.which("gcc") is None:
        raise CannotBuildError("gcc is not installed: apt-get install gcc libc6-dev libnghttp2-dev libssl-dev")
    program = folder / "load"
    command = ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(program)]
    command += [*map(str, sorted(_SOURCES.glob("*.c"))), "-lnghttp2", "-lssl", "-lcrypto", "-lm"]
    compiled = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own command
    if "nghttp2.h: No such file" in compiled.stderr or "ssl.h: No such file" in compiled.stderr:
        raise CannotBuildError(
            "the headers of nghttp2 or OpenSSL are not installed: apt-get install libnghttp2-dev libssl-dev"
        )
    if compiled.returncode:
        raise click.ClickException(f"compiling the load program failed: {compiled.stderr}")
    return program


def write_calls(file: Path, calls: Iterable[Call]) -> None:
    """Write calls as records of the format that the load program reads (benchmarks/load/load.c)."""
    with file.open("wb") as output:
        for call in calls:
            path = call.path.encode()
            output.write(struct.pack("<H", len(path)) + path)
            output.write(struct.pack("<I", len(call.body)) + call.body)
            output.write(struct.pack("<H", len(call.expect)) + call.expect)


@dataclass(frozen=True)
class Protocol:
    """How the load program speaks to a server.

    Attributes:
        http1: over HTTP/1.1 instead of gRPC.
        tls: with TLS.
        token: the bearer token of each call.
    """

    http1: bool = False
    tls: bool = False
    token: str | None = None

    def options(self) -> list[str]:
        """Return the options of the load program."""
        options = ["--authorization", f"Bearer {self.token}"] if self.token else []
        return options + ["--http1"] * self.http1 + ["--tls"] * self.tls


GRPC = Protocol()


def make_calls(
    program: Path,
    port: int,
    file: Path,
    count: int,
    load: Load,
    protocol: Protocol = GRPC,
    *,
    started: Callable[[int], None] | None = None,
) -> Outcome:
    """Make `count` calls, taken from a file in its order.

    `started` gets the number of the process that makes them, which then leads a session.

    Raises:
        BadReplyError: a reply is missing, or lacks what its call expects.

    """
    command = [str(program), "--port", str(port), "--calls", str(count), str(file)]
    command += [*load.arguments(), *protocol.options()]
    with subprocess.Popen(  # noqa: S603 - our own program
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=started is not None
    ) as process:
        if started:
            started(process.pid)
        output, errors = process.communicate()
    if not output:
        raise BadReplyError(errors.strip())
    return outcome_of(output, count)


def outcome_of(line: str, count: int) -> Outcome:
    """Return what the load program has printed about this many calls.

    Raises:
        BadReplyError: a reply is missing, or lacks what its call expects.

    """
    report = json.loads(line)
    if report["bad"] or report["ok"] + report["refused"] + report["expired"] != count:
        raise BadReplyError(f"{report['bad']} of {count} replies are bad: {report['error']}")
    numbers = (report["ok"], report["refused"], report["expired"])
    return Outcome(report["seconds"], report["p50_ms"], report["p99_ms"], *numbers)
