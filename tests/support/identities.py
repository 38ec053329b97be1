"""Issuers of tokens, client certificates, and servers that know their callers."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID
from trustme import CA

from service.rpc.identity.key_file import StoredKey, format_keys, new_key

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

AUDIENCE = "commerce"


class TokenIssuer:
    """An issuer of tokens, with its keys.

    Args:
        name: its name in a file of issuers.
    """

    def __init__(self, name: str = "accounts", key_id: str = "key-1", algorithm: str = "ES256") -> None:
        self.name = name
        self.issuer = f"https://{name}.example.com"
        self.keys: dict[str, tuple[PrivateKey, str]] = {}
        self.add_key(key_id, algorithm)

    def add_key(self, key_id: str, algorithm: str = "ES256") -> None:
        """Make a key, and sign with it from now on."""
        self.keys[key_id] = (private_key(algorithm), algorithm)
        self.signs_with = key_id

    def jwks(self) -> str:
        """Return the key set."""
        return json.dumps({"keys": [jwk(key, algorithm, id_) for id_, (key, algorithm) in self.keys.items()]})

    def claims(self, **claims: Any) -> dict[str, Any]:
        """Return the claims of a valid token, with these instead; without those that are None."""
        now = int(time.time())
        valid = {"iss": self.issuer, "aud": AUDIENCE, "sub": "billing", "iat": now, "exp": now + 300}
        return {name: value for name, value in {**valid, **claims}.items() if value is not None}

    def token(self, header: Mapping[str, Any] | None = None, **claims: Any) -> str:
        """Return a token that is valid unless these claims or headers make it invalid."""
        key, algorithm = self.keys[self.signs_with]
        return jwt.encode(self.claims(**claims), key, algorithm, {"kid": self.signs_with, **(header or {})})

    def bearer(self, **claims: Any) -> tuple[str, str]:
        """Return the metadata with a token."""
        return "authorization", f"Bearer {self.token(**claims)}"

    def table(self, jwks: str, **fields: str | float) -> str:
        """Return its table in a file of issuers."""
        algorithms = sorted({algorithm for _, algorithm in self.keys.values()})
        lines = {"issuer": self.issuer, "audience": AUDIENCE, "algorithms": algorithms, "jwks": jwks, **fields}
        return f"[issuers.{self.name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in lines.items())


def private_key(algorithm: str) -> PrivateKey:
    """Return a new private key for an algorithm."""
    match algorithm:
        case "EdDSA":
            return ed25519.Ed25519PrivateKey.generate()
        case "ES256":
            return ec.generate_private_key(ec.SECP256R1())
        case "ES384":
            return ec.generate_private_key(ec.SECP384R1())
        case _:
            return rsa.generate_private_key(65537, 2048)


def jwk(key: PrivateKey, algorithm: str, key_id: str) -> dict[str, Any]:
    """Return the public part of a key as a JSON Web Key."""
    kind = jwt.get_algorithm_by_name(algorithm)
    return {**json.loads(kind.to_jwk(key.public_key())), "kid": key_id, "alg": algorithm, "use": "sig"}


class JwksServer:
    """Serves a key set on this machine.

    Attributes:
        url: its URL.
        body: what it answers.
        status: the HTTP status of its answers.
        requests: how many requests it has answered.
    """

    def __init__(self, url: str, body: str) -> None:
        self.url = url
        self.body = body
        self.status = 200
        self.requests = 0


@contextmanager
def serving_jwks(body: str, *, seconds: float = 0) -> Iterator[JwksServer]:
    """Serve a key set until the block ends; each answer takes some seconds."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.requests += 1
            time.sleep(seconds)
            self.send_response(served.status)
            if served.status in {301, 302}:
                self.send_header("location", "/other")
            self.end_headers()
            self.wfile.write(served.body.encode())

        def log_message(self, *_arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        served = JwksServer(f"http://127.0.0.1:{server.server_port}/jwks.json", body)
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield served
        finally:
            server.shutdown()
            thread.join()


def write_issuers(folder: Path, *issuers: TokenIssuer, **fields: str | float) -> Path:
    """Write a file of issuers, with their key sets in files beside it, and return its path."""
    for issuer in issuers:
        (folder / f"{issuer.name}.json").write_text(issuer.jwks())
    path = folder / "issuers.toml"
    path.write_text("\n".join(issuer.table(f"{issuer.name}.json", **fields) for issuer in issuers))
    return path


def write_keys(path: Path, *names: str, expire_time: datetime | None = None) -> list[str]:
    """Write a file with a new API key for each name, and return the keys."""
    made: list[tuple[str, StoredKey]] = [new_key(name, datetime.now(UTC), expire_time) for name in names]
    path.write_text(format_keys(stored for _, stored in made))
    return [key for key, _ in made]


def client_certificate(
    ca: CA, *, uris: tuple[str, ...] = (), common_name: str = "billing", dns: tuple[str, ...] = ()
) -> tuple[bytes, bytes]:
    """Return a certificate and its private key, as PEM."""
    issuer = x509.load_pem_x509_certificate(ca.cert_pem.bytes())
    issuer_key: Any = serialization.load_pem_private_key(ca.private_key_pem.bytes(), None)
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    names = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example, Inc")]
    if common_name:
        names.append(x509.NameAttribute(NameOID.COMMON_NAME, common_name))
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(names))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
    )
    if alternatives := [*map(x509.UniformResourceIdentifier, uris), *map(x509.DNSName, dns)]:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    certificate = builder.sign(issuer_key, hashes.SHA256())
    return (
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )
