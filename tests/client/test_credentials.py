"""API keys, tokens and certificates of clients."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from commerce.client import NO_RETRIES, Client, Outcome, Tls, Token
from commerce.client.errors import ClientTimeout, CredentialsError, UnauthenticatedCaller, Unavailable

from tests.support.both_clients import BothClients, Kind, both_clients
from tests.support.certificates import Authority, write_files
from tests.support.identities import TokenIssuer, client_certificate, write_issuers, write_keys
from tests.support.logs import Log
from tests.support.policies import EVERYTHING, policy_of
from tests.support.servers import running_server


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """A policy that allows every known caller everything."""
    names = ("key:*", "jwt:*", "CN=*")
    (tmp_path / "policy.toml").write_text(policy_of(dict.fromkeys(names, EVERYTHING)))
    return tmp_path / "policy.toml"


async def actor(both: BothClients) -> str:
    """Return who the server says has placed an order."""
    user = await both.create_user()
    order = await both.create_order(user.id)
    (event,) = await both.items(lambda client: client.orders.list_events(order_id=order.id))
    found: str = event.actor
    return found


async def test_an_api_key_says_who_calls(kind: Kind, database_url: str, tmp_path: Path, policy: Path) -> None:
    (key,) = write_keys(tmp_path / "keys.toml", "billing")
    async with running_server(database_url, api_keys_file=tmp_path / "keys.toml", policy_file=policy) as server:
        async with both_clients(kind, server.port, api_key=key) as both:
            assert await actor(both) == "key:billing"
            user = await both.create_user()
            acting = both.with_options(on_behalf_of=UUID(user.id))
            order = await acting.create_order(user.id)
            (event,) = await acting.items(lambda client: client.orders.list_events(order_id=order.id))
            assert (event.actor, event.on_behalf_of) == ("key:billing", user.id)
        for wrong in ({}, {"api_key": key[:-1]}):
            async with both_clients(kind, server.port, **wrong) as both:
                with pytest.raises(UnauthenticatedCaller) as refused:
                    await both.create_user()
                assert refused.value.failure.attempts == 1
                assert key[:-1] not in str(refused.value)


class Source:
    """Returns tokens, and counts them.

    Args:
        tokens: the first ones; the last is returned again and again. An exception is raised.
    """

    def __init__(self, *tokens: Token | str | Exception) -> None:
        self.tokens = tokens
        self.count = 0

    def __call__(self) -> Token | str:
        token = self.tokens[min(self.count, len(self.tokens) - 1)]
        self.count += 1
        if isinstance(token, Exception):
            raise token
        return token

    async def later(self) -> Token | str:
        """Return the next token after a pause."""
        await asyncio.sleep(0.01)
        return self()

    def of(self, kind: Kind) -> Any:
        """Return what a client takes."""
        return self if kind == "sync" else self.later


@pytest.fixture
def issuer() -> TokenIssuer:
    return TokenIssuer()


def in_seconds(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


async def test_a_token_is_used_until_shortly_before_it_expires(
    kind: Kind, database_url: str, tmp_path: Path, policy: Path, issuer: TokenIssuer
) -> None:
    async with running_server(
        database_url, jwt_issuers_file=write_issuers(tmp_path, issuer), policy_file=policy
    ) as server:
        lasting = Source(Token(issuer.token(), in_seconds(300)))
        async with both_clients(kind, server.port, token=lasting.of(kind)) as both:
            assert await actor(both) == "jwt:accounts:billing"
            await asyncio.gather(*(both.create_user() for _ in range(5)))
        assert lasting.count == 1
        short = Source(Token(issuer.token(), in_seconds(0.4)))
        async with both_clients(kind, server.port, token=short.of(kind)) as both:
            await both.create_user()
            await asyncio.sleep(0.5)
            # All at the same time wait for one new token.
            await asyncio.gather(*(both.create_user() for _ in range(5)))
        assert short.count >= 2
        async with both_clients(kind, server.port, token=issuer.token()) as both:
            await both.create_user()


async def test_a_token_that_the_server_refuses_is_replaced_once(
    kind: Kind, database_url: str, tmp_path: Path, policy: Path, issuer: TokenIssuer
) -> None:
    expired = issuer.token(exp=int(datetime.now(UTC).timestamp()) - 3600)
    async with running_server(
        database_url, jwt_issuers_file=write_issuers(tmp_path, issuer), policy_file=policy
    ) as server:
        source = Source(expired, issuer.token())
        async with both_clients(kind, server.port, token=source.of(kind)) as both:
            await both.create_user()
            await both.create_user()
        assert source.count == 2
        source = Source(expired)
        async with both_clients(kind, server.port, token=source.of(kind)) as both:
            with pytest.raises(UnauthenticatedCaller) as refused:
                await both.create_user()
        assert (refused.value.problem, source.count) == ("expired", 2)
        assert expired not in str(refused.value)


async def test_a_fixed_token_that_the_server_refuses_is_not_sent_again(
    kind: Kind, database_url: str, tmp_path: Path, policy: Path, issuer: TokenIssuer, log: Log
) -> None:
    expired = issuer.token(exp=int(datetime.now(UTC).timestamp()) - 3600)
    async with (
        running_server(database_url, jwt_issuers_file=write_issuers(tmp_path, issuer), policy_file=policy) as server,
        both_clients(kind, server.port, token=expired) as both,
    ):
        with pytest.raises(UnauthenticatedCaller) as refused:
            await both.create_user()
        assert refused.value.problem == "expired"
        # Were there two, there would be two lines.
        assert await log.line(event="call", method="/commerce.users.v1.UserService/CreateUser")


async def test_a_source_that_fails_is_an_error_unless_the_old_token_is_still_valid(
    kind: Kind, database_url: str, tmp_path: Path, policy: Path, issuer: TokenIssuer, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_server(
        database_url, jwt_issuers_file=write_issuers(tmp_path, issuer), policy_file=policy
    ) as server:
        broken = Source(OSError("no route"), issuer.token())
        async with both_clients(kind, server.port, token=broken.of(kind)) as both:
            with pytest.raises(CredentialsError, match="nothing was written") as failed:
                await both.create_user()
            assert isinstance(failed.value.__cause__, OSError)
            assert failed.value.outcome is Outcome.NOT_WRITTEN
            await both.create_user()
        # Half of its time is over, and a new one is asked for.
        aging = Source(Token(issuer.token(), in_seconds(3)), OSError("no route"))
        async with both_clients(kind, server.port, token=aging.of(kind)) as both:
            await both.create_user()
            await asyncio.sleep(1.6)
            await both.create_user()
            await asyncio.sleep(0.1)
            await both.create_user()
        assert aging.count == 2
        assert "the old one is used" in caplog.text


async def test_a_page_comes_before_the_token_of_the_next_one_which_has_its_own_time(
    database_url: str, tmp_path: Path, policy: Path, issuer: TokenIssuer
) -> None:
    async with running_server(
        database_url, jwt_issuers_file=write_issuers(tmp_path, issuer), policy_file=policy
    ) as server:
        async with both_clients("sync", server.port, token=issuer.token()) as both:
            created = [(await both.create_user()).id for _ in range(2)]
        source = Source(Token(issuer.token(), in_seconds(-1)), OSError("no route"), issuer.token())

        def read() -> list[str]:
            found = []
            with Client(f"127.0.0.1:{server.port}", token=source) as client:
                for user in client.users.list(page_size=1, timeout=1):
                    found.append(user.id)
                    time.sleep(1.1)
            return found

        assert sorted(await asyncio.to_thread(read)) == sorted(created)


async def test_a_source_that_takes_too_long_takes_no_more_than_the_time_of_a_call(database_url: str) -> None:
    async def never() -> str:
        await asyncio.sleep(60)
        return ""

    async with running_server(database_url) as server, both_clients("asyncio", server.port, token=never) as both:
        with pytest.raises(CredentialsError, match="took longer than the call has"):
            await both.call(lambda client: client.users.get(username="ada", timeout=0.3))


async def test_tls_and_the_certificate_of_the_client(
    kind: Kind, database_url: str, tmp_path: Path, policy: Path
) -> None:
    authority = Authority()
    files = write_files(tmp_path, authority.server(), authority.pem)
    certificate, key = client_certificate(authority.ca, common_name="billing")
    (tmp_path / "client.key").write_bytes(key)
    settings = {
        "tls_certificate_file": files.certificate,
        "tls_key_file": files.key,
        "tls_client_ca_file": files.client_ca,
        "client_certificates": "common_name",
        "policy_file": policy,
    }
    async with running_server(database_url, **settings) as server:
        tls = Tls(ca=authority.pem, certificate=certificate, key=tmp_path / "client.key")
        async with both_clients(kind, server.port, tls=tls) as both:
            assert await actor(both) == "CN=billing"
        named = Tls(ca=authority.pem, certificate=certificate, key=key, server_name="localhost")
        async with both_clients(kind, server.port, tls=named) as both:
            await both.create_user()
        for wrong in (Tls(ca=authority.pem), Tls(ca=Authority().pem, certificate=certificate, key=key)):
            async with both_clients(kind, server.port, tls=wrong, retry=NO_RETRIES, timeout=10) as both:
                with pytest.raises((Unavailable, ClientTimeout)):
                    await both.create_user()


def test_secrets_are_not_part_of_any_text() -> None:
    assert "secret" not in repr(Token("secret"))
    assert "secret" not in repr(Tls(certificate=b"c", key=b"secret"))
    with pytest.raises(ValueError, match="needs both certificate and key"):
        Tls(certificate=b"c")
    with pytest.raises(ValueError, match="needs a time zone"):
        Token("secret", datetime(2026, 1, 1))  # noqa: DTZ001 - what is tested
