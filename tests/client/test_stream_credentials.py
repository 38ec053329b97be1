"""Tokens of watches, imports and exports."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from commerce.client import AsyncClient, Client
from commerce.client.errors import CredentialsError, UnauthenticatedCaller

from tests.support.identities import TokenIssuer, write_issuers
from tests.support.policies import EVERYTHING, policy_of
from tests.support.servers import running_server

ROW: Any = {"email": "ada@example.com", "username": "ada"}


class Source:
    """Returns tokens, one after the other; an exception is raised."""

    def __init__(self, *tokens: str | Exception) -> None:
        self._tokens = iter(tokens)

    def __call__(self) -> str:
        token = next(self._tokens)
        if isinstance(token, Exception):
            raise token
        return token


async def test_streams_replace_a_token_that_the_server_refuses(database_url: str, tmp_path: Path) -> None:
    issuer = TokenIssuer()
    expired = issuer.token(exp=int(datetime.now(UTC).timestamp()) - 3600)
    policy = tmp_path / "policy.toml"
    policy.write_text(policy_of({"jwt:*": EVERYTHING}))
    async with running_server(
        database_url, jwt_issuers_file=write_issuers(tmp_path, issuer), policy_file=policy
    ) as server:
        address = f"127.0.0.1:{server.port}"
        async with AsyncClient(address, token=Source(expired, issuer.token())) as client:
            assert (await client.users.import_([ROW])).created == 1
        async with AsyncClient(address, token=Source(expired, issuer.token())) as client:
            (user,) = [user async for user in client.users.export()]
        async with AsyncClient(address, token=Source(expired, issuer.token())) as client:
            assert (await anext(client.users.watch(start="earliest"))).user_id == user.id
        for source, error in ((Source(expired, expired), UnauthenticatedCaller), (Source(OSError()), CredentialsError)):
            async with AsyncClient(address, token=source) as client:
                with pytest.raises(error):
                    await anext(client.users.watch())

        def in_thread() -> None:
            with Client(address, token=Source(expired, issuer.token())) as client:
                assert client.users.import_([ROW]).skipped == 1
            with Client(address, token=Source(expired, issuer.token())) as client:
                assert list(client.users.export()) == [user]
            with Client(address, token=Source(expired, issuer.token())) as client:
                assert next(client.users.watch(start="earliest")).user_id == user.id
            with Client(address, token=Source(expired, expired)) as client, pytest.raises(UnauthenticatedCaller):
                next(client.users.watch())

        await asyncio.to_thread(in_thread)
