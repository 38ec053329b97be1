"""Check what callers saw of orders and credit against what one correct service could have answered them.

Every change of an order increments its version, so the changes of an order have one order, which their responses tell.
An execution is then linearizable (Herlihy and Wing, 1990) if each change follows from the version before it, each read
returned a version as it was written, and no call saw an older version than a call that had ended before it began.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

# The status after each change, and those in which it is allowed (docs/architecture.md: one table in the domain; written
# again here, because a check must not trust what it checks).
CHANGES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "Create": ("PENDING", ()),
    "Confirm": ("CONFIRMED", ("PENDING",)),
    "Process": ("PROCESSING", ("CONFIRMED",)),
    "Ship": ("SHIPPED", ("PROCESSING",)),
    "Deliver": ("DELIVERED", ("SHIPPED",)),
    "Cancel": ("CANCELLED", ("PENDING", "CONFIRMED", "PROCESSING")),
}
READ = "Get"


@dataclass(frozen=True, slots=True)
class Operation:
    """A call about an order with a definite outcome, with all of its attempts.

    Attributes:
        kind: of CHANGES, or READ.
        order_id: the order.
        begin: when the first attempt began.
        end: when the answer arrived.
        status: of the order, as the answer says.
        version: of the order, as the answer says; None if the change was refused because of the status.
    """

    kind: str
    order_id: str
    begin: float
    end: float
    status: str
    version: int | None

    @property
    def changed(self) -> bool:
        """Whether it changed the order."""
        return self.kind != READ and self.version is not None


@dataclass
class History:
    """What all callers saw.

    Attributes:
        operations: about orders.
        paid: the user who pays for each order that is paid with credit, and its total in cents.
        granted: the credit granted to each user, in cents, as far as it was acknowledged.
        moved: the credit that each user got from others, less what it gave to others, in cents.
        unexpected: failures that no fault explains.
        attempts: how many attempts failed, by reason.
    """

    operations: list[Operation] = field(default_factory=list)
    paid: dict[str, tuple[str, int]] = field(default_factory=dict)
    granted: Counter[str] = field(default_factory=Counter)
    moved: Counter[str] = field(default_factory=Counter)
    unexpected: list[str] = field(default_factory=list)
    attempts: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Order:
    """An order in the database.

    Attributes:
        events: the types of its events, in the order of the log.
    """

    status: str
    version: int
    events: Sequence[str]


def violations(history: History, orders: Mapping[str, Order]) -> Iterator[str]:
    """Yield a description of each contradiction between the calls of callers, and between them and the database."""
    by_order = defaultdict(list)
    for operation in history.operations:
        by_order[operation.order_id].append(operation)
    for order_id in by_order.keys() | orders.keys():
        for problem in _problems(by_order[order_id], orders.get(order_id)):
            yield f"order {order_id}: {problem}"


def _problems(operations: Sequence[Operation], stored: Order | None) -> Iterator[str]:
    written: dict[int, Operation] = {}
    for operation in operations:
        if operation.changed and operation.version is not None and operation.version in written:
            yield f"two calls wrote version {operation.version}"
        elif operation.changed and operation.version is not None:
            written[operation.version] = operation
    if stored is None:
        yield "it is lost"
        return
    if missing := [version for version in range(1, stored.version + 1) if version not in written]:
        yield f"version {missing[0]} was written by none of the answered calls"
        return
    if len(written) > stored.version:
        yield f"version {max(written)} is lost"
        return
    yield from _wrong_changes(written, stored)
    yield from _wrong_answers(operations, written)
    yield from _wrong_times(operations)


def _wrong_changes(written: Mapping[int, Operation], stored: Order) -> Iterator[str]:
    kinds = [written[version].kind for version in range(1, stored.version + 1)]
    for version, (before, after) in enumerate(zip(["", *kinds], kinds, strict=False), 1):
        allowed = CHANGES[after][1]
        if (CHANGES[before][0] not in allowed) if before else allowed:
            yield f"version {version} is {after} after {before or 'nothing'}"
    statuses = [CHANGES[kind][0] for kind in kinds]
    if stored.status != statuses[-1]:
        yield f"its status is {stored.status}, and the last change was {kinds[-1]}"
    if list(stored.events) != ["CREATED", *statuses[1:]]:
        yield f"its events are {stored.events}, and its changes {kinds}"


def _wrong_answers(operations: Sequence[Operation], written: Mapping[int, Operation]) -> Iterator[str]:
    statuses = {version: CHANGES[operation.kind][0] for version, operation in written.items()}
    for operation in operations:
        if operation.version is not None and statuses.get(operation.version) != operation.status:
            yield f"{operation.kind} answered {operation.status} for version {operation.version}"
        if operation.version is None:
            low, high = _bounds(operations, operation)
            possible = [version for version, status in statuses.items() if status == operation.status]
            if operation.status in CHANGES[operation.kind][1] or not any(low <= one <= high for one in possible):
                yield f"{operation.kind} was refused in {operation.status} at version {low} to {high}"


def _bounds(operations: Sequence[Operation], at: Operation) -> tuple[float, float]:
    """Return the oldest and the newest version that an operation may have seen."""
    earlier = [one.version for one in operations if one.end < at.begin and one.version is not None]
    later = [one.version - one.changed for one in operations if one.begin > at.end and one.version is not None]
    return max(earlier, default=1), min(later, default=float("inf"))


def _wrong_times(operations: Sequence[Operation]) -> Iterator[str]:
    """Yield the operations that saw an older version than one that had ended before they began."""
    newest, ended = 0, sorted((one for one in operations if one.version is not None), key=lambda one: one.end)
    position = 0
    for operation in sorted(operations, key=lambda one: one.begin):
        while position < len(ended) and ended[position].end < operation.begin:
            newest = max(newest, ended[position].version or 0)
            position += 1
        if operation.version is not None and operation.version < newest + operation.changed:
            yield f"{operation.kind} saw version {operation.version} after version {newest} had been answered"


def balances(history: History, orders: Mapping[str, Order]) -> Mapping[str, tuple[int, int]]:
    """Return the available and the held credit that each user must have, in cents."""
    available, held = Counter(history.granted), Counter[str]()
    available.update(history.moved)
    for order_id, (user_id, total) in history.paid.items():
        status = orders[order_id].status
        if status != "CANCELLED":
            available[user_id] -= total
        if status == "PENDING":
            held[user_id] += total
    return {user_id: (available[user_id], held[user_id]) for user_id in available}
