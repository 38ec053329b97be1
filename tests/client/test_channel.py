"""Which servers a client connects to, and how."""

import asyncio
import time
from typing import TYPE_CHECKING

import pytest
from commerce.client.channel import channel_config
from commerce.client.errors import UserNotFound

from service.config import LimitSettings, load
from tests.support.both_clients import BothClients, both_clients
from tests.support.servers import running_server
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from service.server import Server


@pytest.mark.parametrize(
    ("address", "target", "encrypted"),
    [
        ("localhost:50051", "dns:///localhost:50051", False),
        ("127.0.0.1:50051", "dns:///127.0.0.1:50051", False),
        ("[::1]:50051", "dns:///[::1]:50051", False),
        ("unix:/run/commerce.sock", "unix:/run/commerce.sock", False),
        ("ipv4:127.0.0.1:1,127.0.0.2:2", "ipv4:127.0.0.1:1,127.0.0.2:2", False),
        ("commerce.example.com:443", "dns:///commerce.example.com:443", True),
        ("dns:///commerce.example.com:443", "dns:///commerce.example.com:443", True),
        ("ipv4:127.0.0.1:1,10.0.0.2:2", "ipv4:127.0.0.1:1,10.0.0.2:2", True),
    ],
)
def test_plaintext_is_for_this_machine(address: str, target: str, *, encrypted: bool) -> None:
    config = channel_config(address, None, health_check=True)
    assert (config.target, config.tls is not None) == (target, encrypted)
    assert channel_config(address, False, health_check=True).tls is None  # noqa: FBT003 - as callers write it
    assert channel_config(address, True, health_check=True).tls is not None  # noqa: FBT003


def test_an_address_is_needed() -> None:
    with pytest.raises(ValueError, match="is empty"):
        channel_config("", None, health_check=True)


def test_pings_and_sizes_fit_the_limits_of_the_server() -> None:
    options = dict(channel_config("localhost:1", None, health_check=True).options)
    limits = load(LimitSettings)
    assert int(options["grpc.keepalive_time_ms"]) > limits.min_ping_interval * 1000
    assert int(options["grpc.max_receive_message_length"]) > limits.max_response_bytes
    assert options["grpc.enable_retries"] == 0


async def is_found(both: BothClients, user_id: str) -> bool:
    """Return whether the server that a call comes to has this user."""
    try:
        await both.call(lambda client: client.users.get(user_id))
    except UserNotFound:
        return False
    return True


async def test_calls_go_to_all_servers_in_turn_and_not_to_one_that_stops(server: "Server", database_url: str) -> None:
    """Two servers with different data: the answer says which of them a call came to."""
    # The second says that it stops, and then serves its callers for another two seconds.
    async with (
        running_server(database_url, max_connection_age=2) as stops,
        both_clients("asyncio", stops.port) as only,
        both_clients("asyncio", server.port, stops.port) as both,
    ):
        user = await only.create_user()
        # As soon as both are connected.
        await eventually(lambda: is_found(both, user.id))
        answers = [await is_found(both, user.id) for _ in range(10)]
        assert set(answers) == {True, False}
        stopping = asyncio.create_task(stops.drain())
        began = time.monotonic()
        while time.monotonic() - began < 1.5:
            answers.append(await is_found(both, user.id))
        assert not stopping.done()
        # From the first moment on; without a look at health, every other call would come to it for as long.
        assert len(answers) > 20
        assert answers.count(True) < len(answers) / 4
        assert answers[-5:] == [False] * 5
        await stopping
