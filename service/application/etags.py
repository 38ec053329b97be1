"""Optimistic concurrency (AIP-154)."""

from service.domain.errors import EtagMismatch
from service.domain.events import Entity


def check_etag(entity: Entity, etag: str) -> None:
    """Raise EtagMismatch if the caller sent an etag that is not the current one."""
    if etag and etag != entity.etag:
        message = f"the {entity.aggregate_type} has changed since this etag was read; read it again"
        raise EtagMismatch(message)
