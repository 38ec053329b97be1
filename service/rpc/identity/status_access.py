"""Who may see the state of a server, which is no method: the console shows it (`service.http.console`)."""

from collections.abc import Iterable, Mapping

from service.rpc.identity.denials import Denials, denied
from service.rpc.identity.identities import Identities
from service.rpc.identity.policy_file import PolicyFile

# Who may read all orders can follow all events, and see more of what the service does than its counts.
_PERMISSION = "orders.read"
# Stands for the path of a method in the log and in metrics.
_PATH = "/console/status"


class _WithoutCertificate:
    """A connection without a client certificate, such as those of the HTTP port."""

    def peer(self) -> str:
        return ""

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        return {}

    def peer_identities(self) -> Iterable[bytes] | None:
        return None


class StatusAccess:
    """Decides by the permission `orders.read`, without a limit to one user.

    Args:
        identities: the kinds of identity that are configured; None if every caller is anonymous.
        policies: the policy in force; None allows everything.
        denials: counts who was denied.
    """

    def __init__(self, identities: Identities | None, policies: PolicyFile | None, denials: Denials) -> None:
        self._identities = identities
        self._policies = policies
        self._denials = denials

    async def require(self, metadata: Mapping[str, str | bytes]) -> None:
        """Require the permission of who sends these headers.

        Raises:
            UnauthenticatedCaller: they have no credential, or one that is not valid.
            IssuerUnavailable: the token cannot be verified now.
            PermissionMissing: the caller lacks the permission.
        """
        if self._identities is None or self._policies is None:
            return
        caller = await self._identities.caller(metadata, _WithoutCertificate())
        if _PERMISSION not in self._policies.current[caller.name].permissions:
            error = denied(_PERMISSION, caller.name)
            self._denials.record(_PATH, error)
            raise error
