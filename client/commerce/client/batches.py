"""Batches of any number of ids, in requests that the server accepts."""

from collections.abc import Iterator, Sequence

# The rule of the field `ids` in the protos; a test compares them.
MAX_IDS = 1000


def chunks(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """Return the ids in lists of at most `MAX_IDS`."""
    for start in range(0, len(ids), MAX_IDS):
        yield ids[start : start + MAX_IDS]


def halves(ids: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """Return the first and the second half of two or more ids."""
    middle = len(ids) // 2
    return ids[:middle], ids[middle:]
