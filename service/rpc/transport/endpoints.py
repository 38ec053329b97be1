"""Where a server listens: one or two TCP ports, and a Unix socket."""

from service.config import ListenSettings
from service.rpc.transport.accepting import AcceptingServer
from service.rpc.transport.exposure import require_protection
from service.rpc.transport.listening import Place, UnixSocket, open_connections, stop_listening
from service.rpc.transport.tls import ServerCertificates, TlsFiles


class CannotListen(Exception):
    """An address cannot be listened on. The message is one line for an operator."""


class Endpoints:
    """The endpoints that the settings name, before and while a server listens on them.

    Args:
        settings: the addresses, and the files for TLS.
        has_identities: whether callers must say who they are.

    Attributes:
        certificates: the certificates of TLS, and what became of their last reload; None without TLS.
        port: the TCP port; 0 without one.
        port_without_client_certificates: the second TCP port; 0 without one.

    Raises:
        Exposed: the settings let other machines in without protection.
        CertificateError: the files for TLS cannot be used.
    """

    def __init__(self, settings: ListenSettings, *, has_identities: bool) -> None:
        require_protection(settings, has_identities=has_identities)
        self._settings = settings
        self.certificates: ServerCertificates | None = None
        if settings.tls_certificate_file and settings.tls_key_file:
            files = TlsFiles(settings.tls_certificate_file, settings.tls_key_file, settings.tls_client_ca_file)
            self.certificates = ServerCertificates(files)
        self.port = self.port_without_client_certificates = 0
        self._unix_socket: UnixSocket | None = None
        self._places: list[Place] = []

    def listen(self, server: AcceptingServer) -> None:
        """Listen on all of them; raises CannotListen."""
        settings = self._settings
        if settings.unix_socket:
            unix_socket = UnixSocket(settings.unix_socket, int(settings.unix_socket_mode, 8))
            try:
                server.listen_on_socket(unix_socket)
            except OSError as error:
                raise CannotListen(f"cannot listen on the Unix socket {settings.unix_socket}: {error}") from error
            self._unix_socket = unix_socket
            self._places.append(str(unix_socket.bound))
        if settings.host:
            client_certificates = settings.tls_client_ca_file is not None
            self.port = self._listen_on_port(server, settings.port, client_certificates=client_certificates)
            if (second := settings.tls_port_without_client_certificates) is not None:
                self.port_without_client_certificates = self._listen_on_port(server, second, client_certificates=False)

    def _listen_on_port(self, server: AcceptingServer, wanted: int, *, client_certificates: bool) -> int:
        host = self._settings.host
        try:
            port = server.listen(host, wanted, self.certificates, client_certificates=client_certificates)
        except OSError as error:
            raise CannotListen(
                f"cannot listen on {host}:{wanted}: the port is in use, or this machine does not have the address"
            ) from error
        self._places.append(port)
        return port

    def leave(self) -> None:
        """Stop listening, so that clients connect to other servers; open connections stay (on Linux)."""
        self.remove_socket()
        stop_listening(*self._places)

    def open_connections(self) -> int | None:
        """Return how many connections are open; None if that is unknown (not on Linux)."""
        return open_connections(*self._places)

    def remove_socket(self) -> None:
        """Remove the Unix socket, unless another server listens on it now."""
        if self._unix_socket:
            self._unix_socket.remove()
