import asyncio
import base64
import hmac
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import jwt
import pytest
from cryptography.hazmat.primitives import serialization

from service.domain.errors import UnauthenticatedCaller
from service.rpc.identity.caller import Caller
from service.rpc.identity.issuers import read_issuers
from service.rpc.identity.jwks import JwksError
from service.rpc.identity.refusals import Refusals
from service.rpc.identity.tokens import MAX_TOKENS, Tokens
from service.rpc.status import IssuerUnavailable
from tests.support.identities import AUDIENCE, TokenIssuer, private_key, serving_jwks, write_issuers

USER = "01890000-0000-7000-8000-000000000001"


class Clock:
    """Seconds since 1970, which a test can move."""

    def __init__(self) -> None:
        self.moved = 0.0

    def __call__(self) -> float:
        return time.time() + self.moved


async def tokens_of(folder: Path, *issuers: TokenIssuer, clock: Clock | None = None, **fields: Any) -> Tokens:
    tokens = Tokens(read_issuers(write_issuers(folder, *issuers, **fields)), Refusals(["tokens"]), clock or Clock())
    for keys in tokens.key_sets.values():
        await keys.load()
    return tokens


async def refused(tokens: Tokens, token: str, problem: str = "unknown") -> None:
    authorization = f"Bearer {token}"
    assert tokens.known(authorization) is None
    with pytest.raises(UnauthenticatedCaller) as error:
        await tokens.caller(authorization)
    assert error.value.metadata == {"credential": "bearer token", "problem": problem}
    assert token not in error.value.message or not token
    assert tokens.known(authorization) is None


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "ES384", "EdDSA"])
async def test_a_valid_token_names_its_caller(tmp_path: Path, algorithm: str) -> None:
    issuer = TokenIssuer(algorithm=algorithm)
    tokens = await tokens_of(tmp_path, issuer)
    assert await tokens.caller(f"Bearer {issuer.token()}") == Caller("jwt:accounts:billing")
    assert await tokens.caller(f"bearer {issuer.token(aud=['other', AUDIENCE])}") == Caller("jwt:accounts:billing")


async def test_a_verified_token_is_remembered_until_it_expires(tmp_path: Path) -> None:
    issuer, clock = TokenIssuer(), Clock()
    tokens = await tokens_of(tmp_path, issuer, clock=clock, leeway=10)
    authorization = f"Bearer {issuer.token(exp=int(time.time()) + 100)}"
    assert tokens.known(authorization) is None
    caller = await tokens.caller(authorization)
    assert tokens.known(authorization) is caller
    clock.moved = 105
    assert tokens.known(authorization) is caller
    clock.moved = 111
    assert tokens.known(authorization) is None
    with pytest.raises(UnauthenticatedCaller, match="has expired"):
        await tokens.caller(authorization)


def _encoded(part: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")


def signed_by_a_stranger(issuer: TokenIssuer) -> str:
    return jwt.encode(issuer.claims(), private_key("ES256"), "ES256", {"kid": "key-1"})


def unsigned(issuer: TokenIssuer) -> str:
    return jwt.encode(issuer.claims(), "", "none", {"kid": "key-1"})


def unsigned_but_said_to_be_signed(issuer: TokenIssuer) -> str:
    return issuer.token().rpartition(".")[0] + "."


def signed_with_the_public_key_as_a_secret(issuer: TokenIssuer) -> str:
    # By hand, because the library refuses to sign with such a secret.
    public = issuer.keys["key-1"][0].public_key()
    secret = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    signed = f"{_encoded({'alg': 'HS256', 'kid': 'key-1'})}.{_encoded(issuer.claims())}"
    signature = hmac.digest(secret, signed.encode(), "sha256")
    return f"{signed}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"


def with_other_claims(issuer: TokenIssuer) -> str:
    header, _, signature = issuer.token().split(".")
    return f"{header}.{_encoded(issuer.claims(sub='admin'))}.{signature}"


def with_an_extension_that_must_be_understood(issuer: TokenIssuer) -> str:
    return issuer.token({"crit": ["exp-in-hours"], "exp-in-hours": True})


def deeply_nested(_issuer: TokenIssuer) -> str:
    return f"{base64.urlsafe_b64encode(b'[' * 5000).decode()}.e30.e30"


def with_its_own_key(issuer: TokenIssuer) -> str:
    stranger = TokenIssuer()
    own = json.loads(stranger.jwks())["keys"][0]
    return jwt.encode(issuer.claims(), stranger.keys["key-1"][0], "ES256", {"kid": "key-1", "jwk": own})


INVALID: dict[str, Callable[[TokenIssuer], str]] = {
    "signed by a stranger": signed_by_a_stranger,
    "unsigned": unsigned,
    "unsigned but said to be signed": unsigned_but_said_to_be_signed,
    "signed with the public key as a secret": signed_with_the_public_key_as_a_secret,
    "with other claims": with_other_claims,
    "with an extension": with_an_extension_that_must_be_understood,
    "with its own key": with_its_own_key,
    "with an unknown key": lambda issuer: issuer.token({"kid": "key-2"}),
    "with a key id that is no text": lambda _: f"{_encoded({'alg': 'ES256', 'kid': 1})}.{_encoded({})}.",
    "of another issuer": lambda issuer: issuer.token(iss="https://other.example.com"),
    "of several issuers": lambda issuer: issuer.token(iss=None, issuers=[issuer.issuer]),
    "for another audience": lambda issuer: issuer.token(aud="payments"),
    "for no audience": lambda issuer: issuer.token(aud=None),
    "that never expires": lambda issuer: issuer.token(exp=None),
    "that expires in words": lambda issuer: _resigned(issuer, exp="tomorrow"),
    "that expires after all time": lambda issuer: _resigned(issuer, exp=1e400),
    "that is not valid yet": lambda issuer: issuer.token(nbf=int(time.time()) + 100),
    "of nobody": lambda issuer: issuer.token(sub=None),
    "of an empty subject": lambda issuer: issuer.token(sub=""),
    "of a subject with a line feed": lambda issuer: issuer.token(sub="a\nb"),
    "of a subject that is too long": lambda issuer: issuer.token(sub="x" * 1100),
    "deeply nested": deeply_nested,
    "empty": lambda _: "",
    "words": lambda _: "let me in",
    "dots": lambda _: "..",
    "of arrays": lambda _: "W10.W10.W10",
    "too long": lambda issuer: issuer.token(padding="x" * 8192),
    "with a fourth part": lambda issuer: f"{issuer.token()}.x",
}


def _resigned(issuer: TokenIssuer, **claims: Any) -> str:
    key, algorithm = issuer.keys[issuer.signs_with]
    payload = json.dumps(issuer.claims(**claims)).encode()
    return jwt.PyJWS().encode(payload, key, algorithm, {"kid": issuer.signs_with})


@pytest.mark.parametrize("kind", INVALID)
async def test_an_invalid_token_is_refused(tmp_path: Path, kind: str) -> None:
    issuer = TokenIssuer()
    tokens = await tokens_of(tmp_path, issuer)
    await refused(tokens, INVALID[kind](issuer))


@pytest.mark.parametrize("authorization", ["", "Bearer", "Basic YTpi", "x", b"Bearer x", "Bearer  a.b.c", "é"])
async def test_other_authorizations_are_refused(tmp_path: Path, authorization: str | bytes) -> None:
    tokens = await tokens_of(tmp_path, TokenIssuer())
    assert tokens.known(authorization) is None
    with pytest.raises(UnauthenticatedCaller, match="unknown or not valid"):
        await tokens.caller(authorization)


async def test_an_expired_token_is_said_to_be_expired_within_the_leeway_of_its_issuer(tmp_path: Path) -> None:
    issuer = TokenIssuer()
    tokens = await tokens_of(tmp_path, issuer, leeway=10)
    await refused(tokens, issuer.token(exp=int(time.time()) - 15), "expired")
    assert (await tokens.caller(f"Bearer {issuer.token(exp=int(time.time()) - 5)}")).name


async def test_an_algorithm_must_be_one_of_the_issuer_and_fit_its_key(tmp_path: Path) -> None:
    issuer = TokenIssuer(algorithm="RS256")
    tokens = await tokens_of(tmp_path, issuer)
    key, _ = issuer.keys["key-1"]
    # The same key could also verify these, but neither the issuer nor the key set names the algorithm.
    for algorithm in ("RS512", "PS256"):
        await refused(tokens, jwt.encode(issuer.claims(), key, algorithm, {"kid": "key-1"}))


async def test_an_algorithm_of_the_issuer_must_be_that_of_the_key(tmp_path: Path) -> None:
    issuer = TokenIssuer(algorithm="RS256")
    issuer.add_key("key-2", "PS256")
    tokens = await tokens_of(tmp_path, issuer)
    key, _ = issuer.keys["key-1"]
    await refused(tokens, jwt.encode(issuer.claims(), key, "PS256", {"kid": "key-1"}))


async def test_a_token_without_a_key_id_is_verified_with_the_only_key(tmp_path: Path) -> None:
    issuer = TokenIssuer()
    tokens = await tokens_of(tmp_path, issuer)
    key, algorithm = issuer.keys["key-1"]
    assert (await tokens.caller(f"Bearer {jwt.encode(issuer.claims(), key, algorithm)}")).name
    issuer.add_key("key-2")
    tokens = await tokens_of(tmp_path, issuer)
    await refused(tokens, jwt.encode(issuer.claims(), key, algorithm))


async def test_a_token_is_verified_with_the_keys_of_its_own_issuer_only(tmp_path: Path) -> None:
    one, other = TokenIssuer("one"), TokenIssuer("other")
    tokens = await tokens_of(tmp_path, one, other)
    assert await tokens.caller(f"Bearer {other.token()}") == Caller("jwt:other:billing")
    await refused(tokens, one.token(iss=other.issuer))


async def test_a_token_of_a_user_names_the_user(tmp_path: Path) -> None:
    issuer = TokenIssuer()
    tokens = await tokens_of(tmp_path, issuer, subjects="users")
    caller = await tokens.caller(f"Bearer {issuer.token(sub=USER.upper())}")
    assert caller == Caller(f"jwt:accounts:{USER}", UUID(USER))
    await refused(tokens, issuer.token(sub="billing"))


async def test_tokens_beyond_the_limit_are_verified_again(tmp_path: Path) -> None:
    issuer = TokenIssuer()
    tokens = await tokens_of(tmp_path, issuer)
    first, second = (f"Bearer {issuer.token(sub=name)}" for name in ("first", "second"))
    await tokens.caller(first)
    await tokens.caller(second)
    for number in range(MAX_TOKENS - 1):
        tokens.known(first)
        tokens._verified.put(str(number), (Caller("x"), float("inf")))  # noqa: SLF001 - signing as many would take long
    assert len(tokens._verified) == MAX_TOKENS  # noqa: SLF001 - as above
    assert tokens.known(first)
    assert tokens.known(second) is None


# Rotation of keys


async def test_a_new_key_in_a_file_is_used_when_a_token_needs_it(tmp_path: Path) -> None:
    issuer = TokenIssuer()
    tokens = await tokens_of(tmp_path, issuer)
    issuer.add_key("key-2")
    await refused(tokens, issuer.token())
    write_issuers(tmp_path, issuer)
    assert (await tokens.caller(f"Bearer {issuer.token()}")).name


async def test_a_removed_key_is_no_longer_trusted_for_tokens_that_were_verified_with_it(tmp_path: Path) -> None:
    issuer = TokenIssuer()
    tokens = await tokens_of(tmp_path, issuer)
    authorization = f"Bearer {issuer.token()}"
    assert (await tokens.caller(authorization)).name
    issuer.add_key("key-2")
    write_issuers(tmp_path, issuer)
    await tokens.key_sets["accounts"].load_if_due()
    assert tokens.known(authorization)
    del issuer.keys["key-1"]
    write_issuers(tmp_path, issuer)
    await tokens.key_sets["accounts"].load_if_due()
    await refused(tokens, authorization.removeprefix("Bearer "))


async def test_a_key_that_is_replaced_under_its_id_is_no_longer_trusted(tmp_path: Path) -> None:
    issuer = TokenIssuer()
    tokens = await tokens_of(tmp_path, issuer)
    old = issuer.token()
    assert (await tokens.caller(f"Bearer {old}")).name
    issuer.add_key("key-1")
    write_issuers(tmp_path, issuer)
    await tokens.key_sets["accounts"].load_if_due()
    await refused(tokens, old)
    assert (await tokens.caller(f"Bearer {issuer.token()}")).name


@pytest.mark.parametrize("broken", ["", "{}", "[]", '{"keys": []}', '{"keys": [1]}', '{"keys": [{"kty": "RSA"}]}'])
async def test_the_last_good_keys_stay_in_use(tmp_path: Path, broken: str) -> None:
    issuer = TokenIssuer()
    tokens = await tokens_of(tmp_path, issuer)
    (tmp_path / "accounts.json").write_text(broken)
    keys = tokens.key_sets["accounts"]
    await keys.load_if_due()
    assert keys.problem
    assert keys.loads == {"ok": 1, "failed": 1}
    assert (await tokens.caller(f"Bearer {issuer.token()}")).name
    write_issuers(tmp_path, issuer)
    await keys.load_if_due()
    assert keys.problem is None


async def test_keys_that_must_not_verify_are_ignored(tmp_path: Path) -> None:
    issuer = TokenIssuer()
    good = json.loads(issuer.jwks())["keys"][0]
    weak = {**good, "kid": "weak", "kty": "oct", "k": "c2VjcmV0"}
    encrypting = {**good, "kid": "encrypting", "use": "enc"}
    other = {**good, "kid": "other", "alg": "ES384"}
    tokens = await tokens_of(tmp_path, issuer)
    (tmp_path / "accounts.json").write_text(json.dumps({"keys": [weak, encrypting, other, good]}))
    await tokens.key_sets["accounts"].load_if_due()
    for key_id in ("weak", "encrypting", "other"):
        assert tokens.key_sets["accounts"].find(key_id, "ES256") is None
    assert tokens.key_sets["accounts"].find("key-1", "ES256")


async def test_a_private_key_in_a_key_set_is_used_as_its_public_key(tmp_path: Path) -> None:
    issuer = TokenIssuer()
    tokens = await tokens_of(tmp_path, issuer)
    key, algorithm = issuer.keys["key-1"]
    private = {**json.loads(jwt.get_algorithm_by_name(algorithm).to_jwk(key)), "kid": "key-1"}
    (tmp_path / "accounts.json").write_text(json.dumps({"keys": [private]}))
    await tokens.key_sets["accounts"].load_if_due()
    assert tokens.key_sets["accounts"].problem is None
    assert (await tokens.caller(f"Bearer {issuer.token()}")).name


def tokens_from(folder: Path, issuer: TokenIssuer, url: str) -> Tokens:
    path = folder / "issuers.toml"
    path.write_text(issuer.table(url))
    return Tokens(read_issuers(path), Refusals(["tokens"]))


async def callers(tokens: Tokens, *sent: str) -> list[object]:
    calls: list[Awaitable[Caller]] = [tokens.caller(f"Bearer {token}") for token in sent]
    return await asyncio.gather(*calls, return_exceptions=True)


async def test_an_unknown_key_is_fetched_once_for_all_who_wait(tmp_path: Path) -> None:
    issuer = TokenIssuer()
    with serving_jwks(issuer.jwks(), seconds=0.2) as server:
        tokens = tokens_from(tmp_path, issuer, server.url)
        keys = tokens.key_sets["accounts"]
        await keys.load()
        issuer.add_key("key-2")
        server.body = issuer.jwks()
        # A minute has not passed yet.
        assert all(isinstance(found, UnauthenticatedCaller) for found in await callers(tokens, issuer.token()))
        assert server.requests == 1
        keys._loaded -= 60  # noqa: SLF001 - as if a minute had passed
        found = await callers(tokens, *(issuer.token(sub=str(number)) for number in range(20)))
        assert found == [Caller(f"jwt:accounts:{number}") for number in range(20)]
        assert server.requests == 2


async def test_unknown_keys_are_fetched_at_most_once_a_minute(tmp_path: Path) -> None:
    issuer = TokenIssuer()
    with serving_jwks(issuer.jwks()) as server:
        tokens = tokens_from(tmp_path, issuer, server.url)
        keys = tokens.key_sets["accounts"]
        await keys.load()
        keys._loaded -= 60  # noqa: SLF001 - as above
        for number in range(20):
            await refused(tokens, issuer.token({"kid": f"unknown-{number}"}))
        assert server.requests == 2


async def test_no_key_is_fetched_for_an_algorithm_that_is_not_accepted(tmp_path: Path) -> None:
    issuer = TokenIssuer()
    with serving_jwks(issuer.jwks()) as server:
        tokens = tokens_from(tmp_path, issuer, server.url)
        keys = tokens.key_sets["accounts"]
        await keys.load()
        keys._loaded -= 60  # noqa: SLF001 - as above
        await refused(tokens, signed_with_the_public_key_as_a_secret(issuer))
        assert server.requests == 1


async def test_who_waits_for_keys_may_leave(tmp_path: Path) -> None:
    issuer = TokenIssuer()
    with serving_jwks(issuer.jwks(), seconds=0.3) as server:
        tokens = tokens_from(tmp_path, issuer, server.url)
        leaving = asyncio.create_task(tokens.caller(f"Bearer {issuer.token()}"))
        await asyncio.sleep(0.1)
        staying = asyncio.create_task(tokens.caller(f"Bearer {issuer.token()}"))
        await asyncio.sleep(0)
        leaving.cancel()
        assert await staying == Caller("jwt:accounts:billing")
        assert server.requests == 1


async def test_keys_at_a_url_are_loaded_again_after_five_minutes(tmp_path: Path) -> None:
    issuer = TokenIssuer()
    with serving_jwks(issuer.jwks()) as server:
        keys = tokens_from(tmp_path, issuer, server.url).key_sets["accounts"]
        await keys.load()
        await keys.load_if_due()
        assert server.requests == 1
        keys._loaded -= 300  # noqa: SLF001 - as above
        await keys.load_if_due()
        assert server.requests == 2


async def test_without_any_keys_a_token_cannot_be_verified_for_now(tmp_path: Path) -> None:
    issuer = TokenIssuer()
    with serving_jwks(issuer.jwks()) as server:
        server.status = 503
        tokens = tokens_from(tmp_path, issuer, server.url)
        keys = tokens.key_sets["accounts"]
        with pytest.raises(JwksError, match="HTTP 503"):
            await keys.load()
        with pytest.raises(IssuerUnavailable):
            await tokens.caller(f"Bearer {issuer.token()}")
        assert server.requests == 1
        server.status = 200
        keys._loaded -= 10  # noqa: SLF001 - as above
        assert (await tokens.caller(f"Bearer {issuer.token()}")).name
        # From now on, keys that were loaded before stay in use.
        server.status = 503
        keys._loaded -= 300  # noqa: SLF001 - as above
        await keys.load_if_due()
        assert keys.problem
        assert (await tokens.caller(f"Bearer {issuer.token(sub='other')}")).name


async def test_a_source_may_not_send_elsewhere_nor_too_much(tmp_path: Path) -> None:
    issuer = TokenIssuer()
    with serving_jwks(issuer.jwks()) as server:
        keys = tokens_from(tmp_path, issuer, server.url).key_sets["accounts"]
        server.status = 302
        with pytest.raises(JwksError, match="HTTP 302"):
            await keys.load()
        assert server.requests == 1
        server.status, server.body = 200, "x" * (1 << 20) + "x"
        with pytest.raises(JwksError, match="larger than 1048576 bytes"):
            await keys.load()


async def test_a_source_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    with serving_jwks("") as server:
        url = server.url
    keys = tokens_from(tmp_path, TokenIssuer(), url).key_sets["accounts"]
    with pytest.raises(JwksError, match=r"^the key set cannot be fetched$"):
        await keys.load()
