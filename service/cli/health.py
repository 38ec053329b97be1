"""The `commerce health` command: a probe for orchestrators that cannot call gRPC with TLS themselves.

It runs every few seconds, so it imports as little as it can: not the server, nor the packages for the database.
"""

from ipaddress import ip_address
from typing import Any

import click
import grpc
from cryptography import x509
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from service.cli.channels import TlsOptions, open_channel
from service.config import ListenSettings, SettingsError, load


def check_health(service: str, *, address: str | None, tls: TlsOptions, timeout: float) -> None:
    """Print the health of a service; raises ClickException if it is not serving."""
    options: list[tuple[str, int | str]] = []
    if address is None:
        try:
            settings = load(ListenSettings)
        except SettingsError as error:
            raise click.ClickException(str(error)) from error
        address, tls, options = _own_address(settings, tls)
    with open_channel(address, tls, options) as channel:
        # The stubs do not know its methods.
        stub: Any = HealthStub(channel)
        try:
            response = stub.Check(HealthCheckRequest(service=service), timeout=timeout)
        except grpc.RpcError as error:
            raise click.ClickException(_description(error, service, address)) from error
    status = HealthCheckResponse.ServingStatus.Name(response.status)
    if response.status != HealthCheckResponse.SERVING:
        raise click.ClickException(f"{service or 'the server'} is {status}")
    click.echo(status)


def _own_address(settings: ListenSettings, tls: TlsOptions) -> tuple[str, TlsOptions, list[tuple[str, int | str]]]:
    """Return how to reach the server that has the same settings, on the same machine."""
    if settings.unix_socket:
        return f"unix:{settings.unix_socket}", TlsOptions(), []
    host = "localhost" if settings.host == "localhost" else _reachable(settings.host)
    address = f"[{host}]:{settings.port}" if ":" in host else f"{host}:{settings.port}"
    certificate_file = settings.tls_certificate_file
    if certificate_file is None or tls.ca_file:
        return address, tls, []
    if settings.tls_client_ca_file and tls.certificate_file is None:
        if not settings.tls_port_without_client_certificates:
            raise click.ClickException(
                "the server asks for certificates: set COMMERCE_UNIX_SOCKET, or use --certificate-file and --key-file"
            )
        address = address.removesuffix(f":{settings.port}") + f":{settings.tls_port_without_client_certificates}"
    # It trusts this certificate only, no matter which name it has.
    own = TlsOptions(certificate_file, tls.certificate_file, tls.key_file)
    try:
        certificate = x509.load_pem_x509_certificates(certificate_file.read_bytes())[0]
    except (OSError, ValueError) as error:
        raise click.ClickException(f"{certificate_file} cannot be read") from error
    return address, own, [("grpc.ssl_target_name_override", _name_of(certificate))]


def _reachable(host: str) -> str:
    """Return an address of this machine at which a server that listens on `host` is reached."""
    try:
        listening = ip_address(host)
    except ValueError:
        return host
    if not listening.is_unspecified:
        return host
    return "::1" if listening.version == 6 else "127.0.0.1"  # noqa: PLR2004 - the version of IP


def _name_of(certificate: x509.Certificate) -> str:
    """Return a name or an address that the certificate is valid for."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return "localhost"
    for name in names:
        if isinstance(name, x509.DNSName):
            return name.value.replace("*", "health")
        if isinstance(name, x509.IPAddress):
            return str(name.value)
    return "localhost"


def _description(error: grpc.RpcError, service: str, address: str) -> str:
    if not isinstance(error, grpc.Call):
        raise error
    if error.code() == grpc.StatusCode.NOT_FOUND:
        return f"there is no service {service}"
    return f"no answer from {address} ({error.code().name})"
