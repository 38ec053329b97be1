"""Check what it costs to know and limit callers: `python -m benchmarks.trust`.

This service with TLS, tokens, a policy and admission, and without all of these, use the same database and are measured
in turns. Every call has the same token, as those of one service would, so it is verified once. A run opens new
connections, and a TLS handshake takes as long as three calls. By default a connection lasts 15 seconds, so runs are
longer here than in other comparisons.
"""

import json
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import click
import jwt
import trustme
from cryptography.hazmat.primitives.asymmetric import ec

from benchmarks.bench import ALL, SCRATCH, stop
from benchmarks.calls import Protocol, build
from benchmarks.database import filled_database
from benchmarks.measuring import Bench, Plan, Subject
from benchmarks.ratios import ROUNDS, SHAPE, WORKLOAD, print_ratios
from benchmarks.servers import KINDS, Kind, running
from service.rpc.identity.permissions import permissions

LIMIT = 1.1
RUN_SECONDS = 1.5
# Longer than any run.
TOKEN_SECONDS = 24 * 3600
ISSUERS = """
[issuers.bench]
issuer = "https://tokens.example.com"
audience = "commerce"
algorithms = ["ES256"]
jwks = "keys.json"
"""
POLICY = """
[roles]
everything = [{permissions}]

[identities]
"jwt:bench:*" = ["everything"]
"""


@click.command()
@WORKLOAD
@ROUNDS
@click.option(
    "--seconds", default=RUN_SECONDS, show_default=True, help="Duration of a measured run of the faster server."
)
@click.option("--limit", default=LIMIT, show_default=True, help="Highest allowed ratio of server CPU per call.")
def main(*, workloads: Sequence[str], rounds: int, seconds: float, limit: float) -> None:
    """Compare the cost of calls without and with TLS, tokens, a policy and admission."""
    signal.signal(signal.SIGTERM, stop)
    SCRATCH.mkdir(exist_ok=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        database = stack.enter_context(filled_database(SCRATCH / "postgres", ALL.data))
        kinds = (without(), trusting(folder))
        subjects = [Subject(stack.enter_context(running(kind, database.url, folder)), database) for kind in kinds]
        bench = Bench(build(SCRATCH), subjects, SCRATCH)
        print_ratios(bench, workloads, SHAPE, Plan(rounds, seconds, warm_up_seconds=1, same_calls=True), limit=limit)


def without() -> Kind:
    """Return how to run the service without any of it."""
    return Kind("open", "this service", ("env", "COMMERCE_ADMISSION=false", *KINDS[0].command))


def trusting(folder: Path) -> Kind:
    """Return how to run the service with all of it; its files are written to `folder`."""
    certificate = trustme.CA().issue_cert("127.0.0.1")
    chain = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
    key = ec.generate_private_key(ec.SECP256R1())
    public = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key()))
    files = {
        "COMMERCE_TLS_CERTIFICATE_FILE": ("certificate.pem", chain),
        "COMMERCE_TLS_KEY_FILE": ("key.pem", certificate.private_key_pem.bytes()),
        "COMMERCE_JWT_ISSUERS_FILE": ("issuers.toml", ISSUERS.encode()),
        "COMMERCE_POLICY_FILE": ("policy.toml", POLICY.format(permissions=_permissions()).encode()),
        "": ("keys.json", json.dumps({"keys": [{**public, "kid": "1", "alg": "ES256"}]}).encode()),
    }
    settings = ["COMMERCE_ADMISSION=true"]
    for variable, (name, contents) in files.items():
        (folder / name).write_bytes(contents)
        settings += [f"{variable}={folder / name}"] if variable else []
    claims = {
        "iss": "https://tokens.example.com",
        "aud": "commerce",
        "sub": "bench",
        "exp": int(time.time()) + TOKEN_SECONDS,
    }
    token = jwt.encode(claims, key, "ES256", {"kid": "1"})
    words = "this service with TLS, tokens, a policy and admission"
    return Kind("trusting", words, ("env", *settings, *KINDS[0].command), protocol=Protocol(tls=True, token=token))


def _permissions() -> str:
    return ", ".join(f'"{name}"' for name in permissions())


if __name__ == "__main__":
    main(sys.argv[1:])
