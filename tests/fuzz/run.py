"""Send a real server random requests of all methods for some minutes: `make fuzz`, `make fuzz MINUTES=1 SEED=42`.

Each call must end with a response, or with a code and a reason that the comment of the method names. At the end the
server must have logged no error, must answer, and must not have used more memory than `_MAX_MEGABYTES`.

What is sent depends on the seed alone, except for the ids that the database has. A call that fails the check is printed
with the bytes of its requests.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import click
import commerce.users.v1.user_service_pb2 as users_pb
import grpc
from google.protobuf.descriptor import Descriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from service.devtools.embedded_postgres import embedded_postgres
from tests.fuzz.inputs import Inputs
from tests.support.clients import Clients, connect
from tests.support.databases import NOT_DURABLE, cloned, migrated_template
from tests.support.failures import ENDED_WHILE_SENDING, failure_of
from tests.support.methods import ALL_METHODS, path_of
from tests.support.processes import Process, serving
from tests.support.protos import documented_errors
from tests.support.requests import GOOD_REQUESTS

# Calls at the same time: fewer than any queue of the server holds, so that none may be refused.
_CALLERS = 4
# A server that has just started takes 100.
_MAX_MEGABYTES = 500
# Not more than the maximum size of a request.
_MAX_REQUEST_BYTES = 1 << 20
_MAX_STRINGS = 400
_SECONDS = 20.0
# A watch does not end by itself, and an import takes as many messages as its caller sends.
_STREAM_SECONDS = 0.3
_STREAM_MESSAGES = 20
_CLIENT_CODES = {grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED}


@dataclass
class Findings:
    """What has happened so far.

    Attributes:
        outcomes: how many calls of each method ended with each reason.
        wrong: descriptions of the calls that ended in a way that is not documented.
    """

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


class Fuzzer:
    """Makes calls on one channel.

    Args:
        clients: stubs of the server.
        chance: the source of everything random.
        findings: collects the outcomes.
        stream_seconds: how long to read a stream that does not end by itself.
        rounds: how many times to make _CALLERS calls before some of the valid requests are replaced by new ones.
    """

    def __init__(
        self,
        clients: Clients,
        chance: Random,
        findings: Findings,
        *,
        stream_seconds: float = _STREAM_SECONDS,
        rounds: int = 10,
    ) -> None:
        self._clients = clients
        self._rounds = rounds
        self._stream_seconds = stream_seconds
        self._chance = chance
        self._findings = findings
        self._strings: list[str] = []
        self._inputs = Inputs(chance, self._strings)
        self._valid: dict[str, Message] = {}

    async def run(self, goes_on: Callable[[], bool]) -> None:
        """Make calls for as long as `goes_on` returns True."""
        while goes_on():
            # Anew, because calls use up what they are about: an order is confirmed once, a user is purged.
            for name, build in GOOD_REQUESTS.items():
                if name not in self._valid or self._chance.random() < 0.2:
                    self._valid[name] = await build(self._clients)
                    self._remember(self._valid[name])
            for _ in range(self._rounds):
                calls = [self._call(self._chance.choice(list(ALL_METHODS.values()))) for _ in range(_CALLERS)]
                await asyncio.gather(*calls)

    async def _call(self, method: MethodDescriptor) -> None:
        count = self._chance.randrange(_STREAM_MESSAGES) if method.client_streaming else 1
        requests = [self._request(method) for _ in range(count)]
        limit = self._chance.choice((_SECONDS, _SECONDS, _SECONDS, 0.001, 0.02))
        try:
            await self._send(method, requests, limit)
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) and task.cancelling():
                raise
            # gRPC cancels a stream of requests that the server has ended before its end.
            self._findings.outcomes[method.name, "CANCELLED"] += 1
        except grpc.aio.AioRpcError as error:
            self._check(method, requests, error, limit)
        except Exception as error:  # noqa: BLE001 - it is what is looked for
            self._wrong(method, requests, repr(error))
        else:
            self._findings.outcomes[method.name, "OK"] += 1

    async def _send(self, method: MethodDescriptor, requests: Sequence[bytes], seconds: float) -> None:
        channel: Any = self._clients.channel
        response = GetMessageClass(method.output_type)
        if method.client_streaming:
            call = channel.stream_unary(path_of(method.name))(_stream(requests), timeout=seconds)
            response.FromString(await call)
        elif method.server_streaming:
            call = channel.unary_stream(path_of(method.name))(requests[0], timeout=seconds)
            try:
                async with asyncio.timeout(self._stream_seconds):
                    async for message in call:
                        response.FromString(message)
            except TimeoutError:
                call.cancel()
        else:
            answer = response.FromString(await channel.unary_unary(path_of(method.name))(requests[0], timeout=seconds))
            self._remember(answer)

    def _request(self, method: MethodDescriptor) -> bytes:
        kind: Descriptor = method.input_type
        valid = self._valid.get(method.name)
        message = self._inputs.changed(valid) if valid and self._chance.random() < 0.6 else self._inputs.message(kind)
        data: bytes = message.SerializeToString()
        if self._chance.random() < 0.3:
            data = self._inputs.changed_bytes(data)
        return data[:_MAX_REQUEST_BYTES]

    def _check(
        self, method: MethodDescriptor, requests: Sequence[bytes], error: grpc.aio.AioRpcError, limit: float
    ) -> None:
        failure = failure_of(error)
        self._findings.outcomes[method.name, failure.reason or failure.code.name] += 1
        if method.client_streaming and error.details() == ENDED_WHILE_SENDING:
            return
        if not failure.reason:
            # The caller's own deadline.
            if failure.code not in _CLIENT_CODES or limit == _SECONDS:
                self._wrong(method, requests, f"{failure.code.name} without a reason: {error.details()}")
        elif failure.code.name == "INTERNAL" or (failure.code.name, failure.reason) not in documented_errors(method):
            self._wrong(method, requests, f"{failure.code.name} {failure.reason}: {error.details()}")

    def _wrong(self, method: MethodDescriptor, requests: Sequence[bytes], outcome: str) -> None:
        sent = " ".join(request.hex()[:400] for request in requests)
        self._findings.wrong.append(f"{method.name}: {outcome}\n    {sent}")

    def _remember(self, message: Message) -> None:
        """Use the strings of a message in requests to come."""
        for each, value in message.ListFields():
            if each.message_type and not each.message_type.GetOptions().map_entry:
                for inner in value if each.is_repeated else [value]:
                    self._remember(inner)
            elif each.type == each.TYPE_STRING and not each.is_repeated and value:
                if len(self._strings) < _MAX_STRINGS:
                    self._strings.append(value)
                else:
                    self._strings[self._chance.randrange(_MAX_STRINGS)] = value


async def _stream(requests: Sequence[bytes]) -> AsyncIterator[bytes]:
    for request in requests:
        yield request


def peak_megabytes(process: Process) -> float:
    """Return the largest resident memory that the process has had."""
    status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


async def fuzz(postgres_url: str, seconds: float, seed: int) -> tuple[Findings, float]:
    """Run a server on a new database, make calls for this time, and return what happened and the server's memory."""
    findings = Findings()
    template = await migrated_template(postgres_url)
    async with cloned(postgres_url, template) as url, serving(url, log_format="json") as process:
        async with connect(await process.port()) as clients:
            until = time.monotonic() + seconds
            await Fuzzer(clients, Random(seed), findings).run(lambda: time.monotonic() < until)
            # It serves, and from the database.
            user = await clients.create_user()
            await clients.users.GetUser(users_pb.GetUserRequest(id=user.id))
        megabytes = peak_megabytes(process)
        ended = await process.terminate()
    if ended.status:
        findings.wrong.append(f"the server ended with status {ended.status}")
    findings.wrong += [line for line in ended.stderr.splitlines() if '"level":"error"' in line or "Traceback" in line]
    return findings, megabytes


@click.command()
@click.option("--minutes", default=10.0, show_default=True)
@click.option("--seed", type=int, help="[default: another one each time]")
def main(minutes: float, seed: int | None) -> None:
    """Send a server random requests for some minutes."""
    seed = Random().randrange(10**9) if seed is None else seed
    click.echo(f"fuzzing for {minutes:g} minutes with SEED={seed}")
    with TemporaryDirectory() as folder, embedded_postgres(Path(folder) / "postgres", settings=NOT_DURABLE) as url:
        findings, megabytes = asyncio.run(fuzz(url, minutes * 60, seed))
    reasons: Counter[str] = Counter()
    for (_, reason), count in findings.outcomes.items():
        reasons[reason] += count
    click.echo(
        f"{findings.outcomes.total()} calls: " + ", ".join(f"{n} {reason}" for reason, n in reasons.most_common())
    )
    click.echo(f"the server used up to {megabytes:.0f} MB")
    if untried := set(ALL_METHODS) - {method for method, _ in findings.outcomes}:
        click.echo(f"not called: {', '.join(sorted(untried))}")
    if findings.wrong:
        raise click.ClickException(
            f"{len(findings.wrong)} wrong outcomes with SEED={seed}:\n" + "\n".join(findings.wrong[:20])
        )
    if megabytes > _MAX_MEGABYTES:
        raise click.ClickException(f"the server used more than {_MAX_MEGABYTES} MB with SEED={seed}")


if __name__ == "__main__":
    main()
