"""Which hosts are this machine."""

from ipaddress import ip_address


def is_loopback(host: str) -> bool:
    """Return whether only programs of this machine reach an address.

    >>> [is_loopback(host) for host in ("localhost", "127.0.0.2", "::1", "0.0.0.0", "host.example")]
    [True, True, True, False, False]
    """
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def names_this_machine(header: str) -> bool:
    """Return whether a header `Host` names this machine.

    >>> [names_this_machine(host) for host in ("localhost:8080", "127.0.0.1", "[::1]:8080", "evil.example", "")]
    [True, True, True, False, False]
    """
    return is_loopback(header[1:].partition("]")[0] if header.startswith("[") else header.partition(":")[0])
