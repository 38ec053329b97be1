"""Certificates, CAs, keys and the policy are replaced while callers use them."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trustme import CA

from service.rpc.identity.key_file import StoredKey, format_keys, new_key
from tests.faults.apart import apart
from tests.faults.callers import create_users
from tests.faults.experiment import Experiment, Plan, Result
from tests.faults.rotating import Credentials, call_with_rotating_credentials, seconds_until_refused
from tests.faults.without import without
from tests.support.certificates import replace as replace_file
from tests.support.certificates import write_files
from tests.support.identities import TokenIssuer, client_certificate
from tests.support.processes import COMMAND, serving

_SPIFFE_ID = "spiffe://example.org/caller"
_MAX_CONNECTION_AGE = 2
# The server looks at files every second, and callers read theirs when they connect again.
_SETTLE_SECONDS = 3.5
# After a connection's age with its jitter, and the next look at the files.
_MAX_SECONDS = _MAX_CONNECTION_AGE * 1.1 + 2
_PATIENCE_SECONDS = 15


class _Rotation:
    """The files of a server and of its callers.

    Each part is replaced in three steps: the new one is made known beside the old one, then used, then the old one is
    removed.

    Args:
        folder: where the files are.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.path = folder / "credentials.json"
        self._number = 0
        self._server_ca, self._client_ca = CA(), CA()
        self._issuer = TokenIssuer("services", key_id="0")
        api_key, stored = new_key("caller", datetime.now(UTC))
        self._stored: list[StoredKey] = [stored]
        self._write_server_certificate()
        self._write_keys([stored], ["0"], [self._client_ca])
        (folder / "issuers.toml").write_text(self._issuer.table("services.json"))
        self.write_policy()
        self.credentials = self._credentials(api_key, [self._server_ca])
        self.credentials.write(self.path)

    @property
    def settings(self) -> Mapping[str, Any]:
        """The settings of the server."""
        return {
            "api_keys_file": self._folder / "keys.toml",
            "jwt_issuers_file": self._folder / "issuers.toml",
            "policy_file": self._folder / "policy.toml",
            "client_certificates": "spiffe",
            "tls_certificate_file": self._folder / "tls.crt",
            "tls_key_file": self._folder / "tls.key",
            "tls_client_ca_file": self._folder / "client-ca.crt",
            "tls_reload_interval": 1,
            "max_connection_age": _MAX_CONNECTION_AGE,
        }

    def probe(self) -> Credentials:
        """Return credentials that only the policy in force allows."""
        return replace(self.credentials, token=self._issuer.token(sub=f"probe-{self._number}"))

    async def rotate(self) -> Mapping[str, Credentials]:
        """Replace everything; return the old credentials, which are removed by now, by what is old of them."""
        before = self.credentials
        old_server_ca, old_client_ca, old_key_id = self._server_ca, self._client_ca, self._issuer.signs_with
        self._number += 1
        self._server_ca, self._client_ca = CA(), CA()
        api_key, stored = new_key("caller", datetime.now(UTC))
        self._issuer.add_key(str(self._number))
        self._write_keys(
            [*self._stored, stored], [old_key_id, self._issuer.signs_with], [old_client_ca, self._client_ca]
        )
        both = b"".join(ca.cert_pem.bytes() for ca in (old_server_ca, self._server_ca)).decode()
        replace(before, ca=both).write(self.path)
        await asyncio.sleep(_SETTLE_SECONDS)

        self._write_server_certificate()
        self.credentials = self._credentials(api_key, [old_server_ca, self._server_ca])
        self.credentials.write(self.path)
        await asyncio.sleep(_SETTLE_SECONDS)

        self._stored = [stored]
        self._write_keys(self._stored, [self._issuer.signs_with], [self._client_ca])
        self.write_policy()
        self.credentials = replace(self.credentials, ca=self._server_ca.cert_pem.bytes().decode())
        self.credentials.write(self.path)
        now = self.credentials
        return {
            "certificate": replace(now, certificate=before.certificate, key=before.key),
            "token": replace(now, token=before.token),
            "API key": replace(now, api_key=before.api_key),
            "policy": replace(now, token=self._issuer.token(sub=f"probe-{self._number - 1}")),
        }

    def write_policy(self) -> None:
        """Write a policy that allows the callers, and one probe."""
        names = [_SPIFFE_ID, "jwt:services:caller", "key:caller", f"jwt:services:probe-{self._number}"]
        lines = [
            "[roles]",
            'reader = ["users.read"]',
            "[identities]",
            *(f'{json.dumps(name)} = ["reader"]' for name in names),
        ]
        replace_file(self._folder / "policy.toml", "\n".join(lines).encode())

    def _write_server_certificate(self) -> None:
        write_files(self._folder, self._server_ca.issue_cert("localhost", "127.0.0.1"))

    def _write_keys(self, stored: Sequence[StoredKey], key_ids: Sequence[str], cas: Sequence[CA]) -> None:
        """Write the public part of everything that is accepted."""
        replace_file(self._folder / "keys.toml", format_keys(stored).encode())
        self._issuer.keys = {key_id: self._issuer.keys[key_id] for key_id in key_ids}
        replace_file(self._folder / "services.json", self._issuer.jwks().encode())
        replace_file(self._folder / "client-ca.crt", b"".join(ca.cert_pem.bytes() for ca in cas))

    def _credentials(self, api_key: str, server_cas: Sequence[CA]) -> Credentials:
        certificate, key = client_certificate(self._client_ca, uris=(_SPIFFE_ID,))
        ca = b"".join(one.cert_pem.bytes() for one in server_cas)
        return Credentials(ca.decode(), certificate.decode(), key.decode(), self._issuer.token(sub="caller"), api_key)


async def _run(plan: Plan) -> Result:
    return await _rotate(plan, COMMAND)


async def _control(plan: Plan) -> Result:
    return await _rotate(
        replace(plan, smoke=True),
        without("service.rpc.identity.api_keys:ApiKeys.reload=tests.faults.rotating:keep"),
    )


async def _rotate(plan: Plan, program: Sequence[str]) -> Result:
    rotation = _Rotation(plan.folder)
    slowest: dict[str, float] = {}
    async with plan.database() as url, serving(url, program=program, **rotation.settings) as server:
        (user_id,) = await create_users(url, 1)
        port = await server.port()
        async with apart(call_with_rotating_credentials, port, rotation.path, user_id) as callers:
            await callers.until_counted(100)
            for _ in range(plan.size(full=10, smoke=1)):
                # Otherwise, that it is refused afterwards would prove nothing.
                if await seconds_until_refused(port, rotation.probe(), "token", user_id, patience=0.5) < float("inf"):
                    raise RuntimeError("the probe is refused although the policy allows it")
                old = await rotation.rotate()
                waited = await asyncio.gather(
                    *(
                        seconds_until_refused(
                            port, credentials, "token" if what == "policy" else what, user_id, _PATIENCE_SECONDS
                        )
                        for what, credentials in old.items()
                    )
                )
                for what, seconds in zip(old, waited, strict=True):
                    slowest[what] = max(seconds, slowest.get(what, 0.0))
            served = await callers.result()
    result = Result(
        {
            "calls": served.calls,
            "failed": served.failures.total(),
            "repeated after GOAWAY": served.raced,
            **{f"old {what} refused after, s": seconds for what, seconds in slowest.items()},
        }
    )
    result.require(not served.failures, f"calls failed: {dict(served.failures)}")
    for what, seconds in slowest.items():
        result.require(seconds < float("inf"), f"the old {what} is still accepted")
        result.require_in_time(seconds <= _MAX_SECONDS, f"the old {what} was accepted for {seconds:.1f} s")
    return result


EXPERIMENT = Experiment(
    name="rotation",
    fault="the certificate, both CAs, the keys of tokens, API keys and the policy are replaced 10 times under load",
    passes=f"no call fails, and what is old is refused within {_MAX_SECONDS:.1f} s, also on open connections",
    run=_run,
    control=_control,
    defence="reading the API keys again",
)
