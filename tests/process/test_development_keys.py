import asyncio
import os
import re
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import commerce.users.v1.user_service_pb2 as pb
from grpc import StatusCode

from tests.support.clients import connect, new_user
from tests.support.failures import fails
from tests.support.passwords import PASSWORD
from tests.support.processes import PATIENCE_SECONDS, run_command, running_command
from tests.support.waiting import eventually

BIN = Path(sys.executable).parent


async def test_the_development_server_says_how_to_call_it_with_a_key(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    async with running_command("serve", "--dev", "--port", "0", data_dir=data_dir) as process:
        await eventually(lambda: "COMMERCE_API_KEYS_FILE=" in process.stdout(), PATIENCE_SECONDS)
        async with connect(await process.port()) as clients:
            await clients.create_user()
        create_key = re.search(r"KEY=\$\(\.venv/bin/commerce (keys create me --file \S+)\)", process.stdout())
        setting = re.search(r"COMMERCE_API_KEYS_FILE=(\S+) make run", process.stdout())
    assert create_key
    assert setting
    created = await run_command(*create_key[1].split())
    assert created.status == 0, created
    key = (("x-api-key", created.stdout.strip()),)
    arguments = ("serve", "--dev", "--port", "0")
    async with running_command(*arguments, data_dir=data_dir, api_keys_file=setting[1]) as process:
        async with connect(await process.port()) as clients:
            request = pb.CreateUserRequest(user=new_user(), password=PASSWORD)
            with fails(StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED_CALLER"):
                await clients.users.CreateUser(request)
            user = (await clients.users.CreateUser(request, metadata=key)).user
            watch = clients.users.WatchUsers(pb.WatchUsersRequest(earliest=True, user_ids=[user.id]), metadata=key)
            assert (await anext(aiter(watch))).event.actor == "key:me"
            watch.cancel()
        assert 'grpcurl -plaintext -H "x-api-key: $KEY"' in process.stdout()
        with_buf = re.search(r"\.venv/bin/(buf curl .*\n.*)", process.stdout())
        assert with_buf
        command = with_buf[1].replace('"bob"', f'"{user.username}"')
        called = await asyncio.create_subprocess_shell(
            f"{BIN}/{command}", env={**os.environ, "KEY": created.stdout.strip()}, stdout=PIPE
        )
        answer, _ = await called.communicate()
        assert user.email.encode() in answer
    assert "developer" in (data_dir / "policy.toml").read_text()
