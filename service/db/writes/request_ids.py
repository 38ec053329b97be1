"""Request ids: the stored responses that make a repeated call harmless (AIP-155)."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import ColumnElement, delete, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from service.application.ports.errors import AlreadyAnswered, Contention
from service.application.ports.unit_of_work import RequestKey
from service.db.tables import orders, request_ids
from service.domain.errors import RequestIdReused


async def claim(session: AsyncSession, request: RequestKey) -> None:
    """Claim a request id for the session's transaction.

    While another transaction holds the claim, this waits on the primary key until that one commits or rolls back.

    Raises:
        AlreadyAnswered: an earlier call with this request id and body has committed.
        RequestIdReused: an earlier call with this request id had another body.
        Contention: the stored response expired between the two statements, so the request id is free again.
    """
    claimed = await session.execute(
        insert(request_ids)
        .values(
            caller=request.caller,
            method=request.method,
            request_id=request.request_id,
            body_digest=request.body_digest,
        )
        .on_conflict_do_nothing()
        .returning(request_ids.c.request_id)
    )
    if claimed.first():
        return
    columns = select(request_ids.c.body_digest, request_ids.c.response)
    stored = (await session.execute(columns.where(*_has_key(request)))).first()
    if stored is None:
        raise Contention
    if stored.body_digest not in (request.body_digest, *request.accepted_digests):
        raise RequestIdReused.at("request_id", "was used with another request body")
    raise AlreadyAnswered(stored.response)


async def store_response(session: AsyncSession, request: RequestKey, response: bytes, subjects: Sequence[UUID]) -> None:
    """Store the response of a call, with the ids of what it is about, under the request id that it has claimed."""
    ids = dict(zip(("resource_id", "other_resource_id"), subjects, strict=False))
    await session.execute(update(request_ids).where(*_has_key(request)).values(response=response, **ids))


async def delete_responses_about_user(session: AsyncSession, user_id: UUID) -> None:
    """Delete the stored responses that are about a user who is locked, and about its orders."""
    own_orders = select(orders.c.id).where(orders.c.user_id == user_id)
    await session.execute(delete(request_ids).where(request_ids.c.resource_id.in_(own_orders)))
    for column in (request_ids.c.resource_id, request_ids.c.other_resource_id):
        await session.execute(delete(request_ids).where(column == user_id))


def _has_key(request: RequestKey) -> tuple[ColumnElement[bool], ...]:
    columns = request_ids.c
    return (
        columns.caller == request.caller,
        columns.method == request.method,
        columns.request_id == request.request_id,
    )
