"""Builds the load program and makes it call a server."""

import json
import shutil
import struct
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import click

from benchmarks.workloads import Call

_SOURCES = Path(__file__).resolve().parent / "load"


class CannotBuildError(click.ClickException):
    """What the load program is built with is not installed."""


class BadReplyError(click.ClickException):
    """A server answered wrongly, or not at all."""


@dataclass(frozen=True)
class Load:
    """How to call: as fast as replies come, or at Poisson times at this many calls a second."""

    connections: int
    streams: int
    rate: float | None = None


@dataclass(frozen=True)
class Outcome:
    """How fast the replies came; every one was as expected."""

    seconds: float
    p50_ms: float
    p99_ms: float


def build(folder: Path) -> Path:
    """Return the load program, compiled into `folder`.

    Raises:
        CannotBuildError: gcc, or a header that it needs, is not installed.

    """
    if shutil.which("gcc") is None:
        raise CannotBuildError("gcc is missing: apt-get install gcc libc6-dev libnghttp2-dev")
    program = folder / "load"
    command = ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(program)]
    command += [*map(str, sorted(_SOURCES.glob("*.c"))), "-lnghttp2", "-lm"]
    compiled = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own command
    if "nghttp2.h: No such file" in compiled.stderr:
        raise CannotBuildError("the headers of nghttp2 are missing: apt-get install libnghttp2-dev")
    if compiled.returncode:
        raise click.ClickException(f"the load program does not compile: {compiled.stderr}")
    return program


def write_calls(file: Path, calls: Iterable[Call]) -> None:
    """Write the calls in the form that the load program reads."""
    with file.open("wb") as output:
        for call in calls:
            path = call.path.encode()
            output.write(struct.pack("<H", len(path)) + path)
            output.write(struct.pack("<I", len(call.body)) + call.body)
            output.write(struct.pack("<H", len(call.expect)) + call.expect)


def make_calls(program: Path, port: int, file: Path, count: int, load: Load, *, http1: bool = False) -> Outcome:
    """Make so many of the calls in a file.

    Raises:
        BadReplyError: a reply is not what the call expects, or does not come.

    """
    command = [str(program), "--port", str(port), "--calls", str(count), str(file)]
    command += ["--connections", str(load.connections), "--streams", str(load.streams)]
    command += ["--rate", str(load.rate)] if load.rate else []
    command += ["--http1"] if http1 else []
    result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own program
    if not result.stdout:
        raise BadReplyError(result.stderr.strip())
    said = json.loads(result.stdout)
    if said["bad"] or said["ok"] != count:
        raise BadReplyError(f"{said['bad']} of {count} replies are bad: {said['error']}")
    return Outcome(said["seconds"], said["p50_ms"], said["p99_ms"])
