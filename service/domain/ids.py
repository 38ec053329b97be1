"""Identifiers: UUIDs of version 7, which sort by the time at which they were made."""

from uuid import UUID, SafeUUID

import uuid_utils

# The last bits of a user's id are random. Hashed by them, all users are spread evenly, and so are their orders.
SHARD_BITS = 12
_SHARD_MASK = (1 << SHARD_BITS) - 1


def uuid7() -> UUID:
    """Return a new id.

    >>> uuid7().version
    7
    """
    return _uuid(uuid_utils.uuid7().int)


def uuid7_beside(neighbor: UUID) -> UUID:
    """Return a new id with the last 12 bits of another one, so that both rows can be stored in the same shard.

    The id stays unique and sorted: before these bits it has the time, a counter that grows within a millisecond, and
    20 random bits.

    >>> uuid7_beside(UUID("01890000-0000-7000-8000-000000000abc")).hex[-3:]
    'abc'
    """
    return _uuid(uuid_utils.uuid7().int & ~_SHARD_MASK | neighbor.int & _SHARD_MASK)


def _uuid(number: int) -> UUID:
    # UUID's own constructor checks all of its parameters, which takes twice as long as everything else here.
    made = object.__new__(UUID)
    object.__setattr__(made, "int", number)
    object.__setattr__(made, "is_safe", SafeUUID.unknown)
    return made
