"""The debug socket: who gets an answer, and what becomes of questions that are wrong."""

import asyncio
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from service.debugging.endpoint import CannotAnswer
from service.debugging.protocol import Peer, may_ask
from tests.support.debug_sockets import ask, listening, names_of
from tests.support.logs import Log
from tests.support.servers import running_server
from tests.support.waiting import eventually

NOBODY = 65534
# As the user with a number, connects to the abstract socket with a name, and prints what it says.
CONNECTING = """
import os, socket, sys

if user := int(sys.argv[2]):
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect("\\0" + sys.argv[1])
    print(connection.recv(1000).decode())
"""
is_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user, and leave the network")


def echoed(question: Mapping[str, Any], _has_gone: Callable[[], bool]) -> Mapping[str, Any]:
    return {"asked": question["ask"]}


def connect(*command: str, name: str, user: int = 0) -> subprocess.CompletedProcess[str]:
    program = [*command, sys.executable, "-c", CONNECTING, name.removeprefix("\0"), str(user)]
    return subprocess.run(program, capture_output=True, text=True, check=False, timeout=20)


async def test_a_question_gets_an_answer() -> None:
    with listening(echoed) as name:
        assert await ask(name, {"ask": "me"}) == {"asked": "me"}


async def test_several_questions_are_answered_at_the_same_time_and_not_too_many() -> None:
    answered, asked = threading.Event(), threading.Semaphore(0)

    def slowly(_question: Mapping[str, Any], _has_gone: Callable[[], bool]) -> Mapping[str, Any]:
        asked.release()
        answered.wait(20)
        return {"asked": "slowly"}

    with listening(slowly) as name:
        asking = [asyncio.create_task(ask(name, {"ask": "slowly"})) for _ in range(4)]
        for _ in asking:
            assert await asyncio.to_thread(asked.acquire, timeout=20)
        assert (await ask(name, {"ask": "once more"}))["error"].startswith("it is answering 4 questions")
        answered.set()
        assert await asyncio.gather(*asking) == [{"asked": "slowly"}] * 4
        # Their places are free again: the server has closed their connections after that.
        assert "error" not in await ask(name, {"ask": "slowly"})


async def test_an_error_for_an_operator_is_the_answer() -> None:
    def fail(_question: Mapping[str, Any], _has_gone: Callable[[], bool]) -> Mapping[str, Any]:
        raise CannotAnswer("not today")

    with listening(fail) as name:
        assert await ask(name, {"ask": "me"}) == {"error": "not today"}


async def test_an_unknown_error_is_in_the_log_and_its_text_nowhere(log: Log) -> None:
    def fail(_question: Mapping[str, Any], _has_gone: Callable[[], bool]) -> Mapping[str, Any]:
        raise LookupError("ada@example.com")

    with listening(fail) as name:
        answer = await ask(name, {"ask": "me"})
    assert "its log says where" in answer["error"]
    line = await log.line(event="a debug question could not be answered")
    assert any("test_endpoint.py" in frame for frame in line["raised"])
    assert "ada@example.com" not in f"{answer}{log.output.getvalue()}"


async def test_who_asks_what_is_logged(log: Log) -> None:
    with listening(echoed) as name:
        await ask(name, {"ask": "calls"})
    line = await log.line(event="debug question")
    assert (line["asked"], line["uid"], line["pid"]) == ("calls", os.geteuid(), os.getpid())


@pytest.mark.parametrize("sent", [b"calls\n", b"[]\n", b"\xff\n", b'{"ask": "calls"', b"x" * 10_000])
async def test_what_is_no_question_is_refused(sent: bytes) -> None:
    def send() -> bytes:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(20)
            connection.connect(name)
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            try:
                return connection.recv(1000)
            except ConnectionResetError:
                # It has not read all of it.
                return b"cannot be read"

    with listening(echoed) as name:
        assert b"cannot be read" in await asyncio.to_thread(send)
        assert await ask(name, {"ask": "me"}) == {"asked": "me"}


async def test_a_client_that_goes_is_noticed() -> None:
    gone = threading.Event()

    def watch(_question: Mapping[str, Any], has_gone: Callable[[], bool]) -> Mapping[str, Any]:
        while not has_gone():
            gone.wait(0.01)
        gone.set()
        return {}

    with listening(watch) as name:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(name)
            connection.sendall(b'{"ask": "me"}\n')
            assert not await asyncio.to_thread(gone.wait, 0.1)
        assert await asyncio.to_thread(gone.wait, 20)


def test_root_and_the_same_user_may_ask_if_they_are_visible() -> None:
    own = os.geteuid()
    assert may_ask(Peer(12, own))
    assert may_ask(Peer(12, 0))
    assert not may_ask(Peer(12, own + 1))
    # The process of another container that shares the network.
    assert not may_ask(Peer(0, own))
    assert not may_ask(Peer(0, 0))


@is_root
async def test_another_user_gets_no_answer(log: Log) -> None:
    with listening(echoed) as name:
        finished = await asyncio.to_thread(connect, name=name, user=NOBODY)
        assert "only its user and root may ask it" in finished.stdout, finished
        assert (await log.line(event="refused a debug question of another user or container"))["uid"] == NOBODY
        # Once in ten seconds, so that another user cannot fill the log.
        await asyncio.to_thread(connect, name=name, user=NOBODY)
        assert len(log.lines(event="refused a debug question of another user or container")) == 1


@is_root
async def test_another_network_does_not_reach_the_socket() -> None:
    possible = await asyncio.to_thread(subprocess.run, ["unshare", "--net", "true"], capture_output=True, check=False)
    if possible.returncode:
        pytest.skip("this system does not allow another network namespace")
    with listening(echoed) as name:
        finished = await asyncio.to_thread(connect, "unshare", "--net", name=name)
        assert "ConnectionRefusedError" in finished.stderr, finished


async def test_a_server_has_a_socket_while_it_runs_unless_it_is_switched_off(database_url: str) -> None:
    before = names_of(os.getpid())
    async with running_server(database_url):
        assert len(names_of(os.getpid()) - before) == 1
    await eventually(lambda: not names_of(os.getpid()) - before)
    async with running_server(database_url, debug_socket=False):
        assert not names_of(os.getpid()) - before
