"""Asks the servers of this machine what they do, for `commerce debug`, and prints their answers."""

import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import click

from service.cli import debug_tables as tables
from service.debugging.protocol import names, peer_of, receive_line, send_line

# How long a server may take to answer; it takes seconds only if its event loop is stuck.
_ANSWER_SECONDS = 25.0
# An answer has at most some hundred bytes for each call, connection and stack.
_MAX_ANSWER_BYTES = 64 * 1024 * 1024

Answer = Mapping[str, Any]


class _Problem(Exception):
    """A server does not answer. The message says why, in one line."""


def calls(pid: int | None, *, as_json: bool, limit: int, stacks: bool) -> None:
    """Print the running calls."""
    answers = _ask(pid, {"ask": "calls", "stacks": stacks})
    for answer in answers:
        hidden = len(answer["calls"]) - limit
        if hidden > 0:
            del answer["calls"][limit:]
            answer["not_shown"] += hidden
    _print(answers, tables.calls, as_json=as_json)


def pool(pid: int | None, *, as_json: bool) -> None:
    """Print the pools and who uses their connections."""
    _print(_ask(pid, {"ask": "pool"}), tables.pool, as_json=as_json)


def statements(pid: int | None, *, as_json: bool, longer_than: float) -> None:
    """Print what PostgreSQL does for the servers."""
    answers = _ask(pid, {"ask": "statements"})
    for answer in answers:
        answer["sessions"] = [
            session
            for session in answer["sessions"]
            if max(session["seconds"] or 0, session["transaction_seconds"] or 0) >= longer_than
        ]
    _print(answers, tables.statements, as_json=as_json)


def channels(pid: int | None, *, as_json: bool) -> None:
    """Print what channelz knows."""
    _print(_ask(pid, {"ask": "channels"}), tables.channels, as_json=as_json)


def profile(pid: int | None, *, as_json: bool, seconds: float, wall: bool, top: int, collapsed: str | None) -> None:
    """Print which functions use the processor."""
    answers = _ask(pid, {"ask": "profile", "seconds": seconds, "wall": wall}, seconds=seconds)
    if collapsed is not None:
        _write(collapsed, (line for answer in answers for line in tables.collapsed(answer)))
        if collapsed == "-":
            return
    _print(answers, lambda answer: tables.profile(answer, top), as_json=as_json)


def _write(file: str, lines: Iterator[str]) -> None:
    text = "".join(f"{line}\n" for line in lines)
    if file == "-":
        click.echo(text, nl=False)
        return
    try:
        Path(file).write_text(text)
    except OSError as error:
        raise click.ClickException(f"{file}: {error.strerror}") from error


def _print(answers: Sequence[Answer], lines: Callable[[Answer], Iterator[str]], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(answers, indent=2))
        return
    for number, answer in enumerate(answers):
        if number:
            click.echo()
        click.echo(tables.heading(answer["process"]))
        for line in lines(answer):
            click.echo(line)


def _ask(pid: int | None, question: Mapping[str, Any], *, seconds: float = 0.0) -> list[dict[str, Any]]:
    """Return the answers of all servers, by their workers and process ids.

    Args:
        pid: the process id of the only one to ask; None for all.
        question: what to ask.
        seconds: how long the answer takes.

    Raises:
        ClickException: none has answered.
    """
    try:
        found = sorted(names()) if sys.platform == "linux" else None
    except OSError:
        found = None
    if found is None:
        raise click.ClickException("`commerce debug` needs Linux, with /proc")
    answers: list[dict[str, Any]] = []
    problems: list[str] = []
    with ExitStack() as connections:
        asked: list[tuple[int, socket.socket]] = []
        for name in found:
            connection = connections.enter_context(socket.socket(socket.AF_UNIX))
            try:
                if (server := _sent(connection, name, pid, question)) is not None:
                    asked.append((server, connection))
            except _Problem as problem:
                problems.append(str(problem))
        # They answer at the same time.
        give_up = time.monotonic() + seconds + _ANSWER_SECONDS
        for server, connection in asked:
            try:
                answers.append(_answer(connection, server, give_up))
            except _Problem as problem:
                problems.append(str(problem))
    if not answers:
        which = "no server" if pid is None else f"no server with process id {pid}"
        raise click.ClickException(
            "; ".join(problems)
            or f"{which} runs on this machine, or in this container, or COMMERCE_DEBUG_SOCKET is off there"
        )
    for line in problems:
        click.echo(f"Note: {line}", err=True)
    return sorted(answers, key=lambda answer: (answer["process"]["worker"] or 0, answer["process"]["pid"]))


def _sent(connection: socket.socket, name: str, pid: int | None, question: Mapping[str, Any]) -> int | None:
    """Send a question to a server, and return its process id; None if it is not to be asked, or has just ended.

    Raises:
        _Problem: it would not answer.
    """
    connection.settimeout(_ANSWER_SECONDS)
    try:
        connection.connect(name)
        peer = peer_of(connection)
        if pid is not None and pid != peer.pid:
            return None
        if not peer.pid:
            raise _Problem("a server in another container shares the network with this one: run this in that container")
        if os.geteuid() not in {0, peer.uid}:
            raise _Problem(
                f"the server with process id {peer.pid} belongs to another user: run this as the user with id"
                f" {peer.uid}, or as root"
            )
        # One that refuses an answer may have said so, and have gone, already.
        with suppress(BrokenPipeError):
            send_line(connection, question)
    except OSError:
        return None
    return peer.pid


def _answer(connection: socket.socket, server: int, give_up: float) -> dict[str, Any]:
    """Return the answer of a server; raises _Problem."""
    connection.settimeout(max(0.1, give_up - time.monotonic()))
    try:
        answer = receive_line(connection, _MAX_ANSWER_BYTES)
    except TimeoutError:
        raise _Problem(
            f"the server with process id {server} does not answer: it is stopped, or runs C code that does not let go"
            " of Python's lock (py-spy dump shows it)"
        ) from None
    except (OSError, ValueError):
        raise _Problem(f"the server with process id {server} has ended before it has answered") from None
    if problem := answer.get("error"):
        raise _Problem(f"the server with process id {server}: {problem}")
    return answer
