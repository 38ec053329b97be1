"""The caller of a call."""

from dataclasses import dataclass, field
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, and for whom.

    What a caller may do is not a part of it: the policy decides that by `name`, so that a new policy also applies to
    callers who are known already.

    Attributes:
        name: the actor of events and ledger entries, unique among all kinds of identity. It is `anonymous` if no
            identity is configured, `spiffe://…` or the subject of a client certificate, such as `CN=billing`,
            `jwt:<issuer>:<subject>`, or `key:<name>`. It has no control characters.
        end_user: the id of the user for whom the caller acts; None if it acts for itself.
        scope: name and end user as one text. A stored response is returned, and a page token or a cursor accepted,
            only in the scope in which it was issued.
    """

    name: str
    end_user: UUID | None = None
    scope: str = field(init=False)

    def __post_init__(self) -> None:
        # A name has no line feed, so no name can be the scope of another caller. The class is frozen, so there is no
        # other way to set a derived attribute.
        scope = self.name if self.end_user is None else f"{self.name}\n{self.end_user}"
        object.__setattr__(self, "scope", scope)


# The caller of every call while no identity is configured.
ANONYMOUS = Caller("anonymous")
