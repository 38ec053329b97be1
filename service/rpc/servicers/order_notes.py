"""The methods of OrderService for the notes of orders."""

import asyncio
from collections.abc import Callable
from datetime import datetime
from uuid import UUID

import commerce.orders.v1.order_service_pb2 as pb
from commerce.orders.v1.order_service_pb2_grpc import OrderServiceServicer

from service.application.notes import change_note, create_note, delete_note
from service.application.ports.queries import MAX_RANKED, NoteQueries
from service.application.ports.unit_of_work import UnitOfWork
from service.domain.search import NoteQuery
from service.rpc.messages.notes import (
    MATCH_POSITION,
    POSITION,
    order_note_match_message,
    order_note_message,
    parse_note_filter,
)
from service.rpc.messages.update_masks import fields_to_update
from service.rpc.messages.values import require_id
from service.rpc.methods import Context
from service.rpc.signing.page_tokens import PageTokens


class OrderNoteMethods(OrderServiceServicer):
    """A part of `service.rpc.servicers.orders.OrderServicer`, which sets the attributes below."""

    _uow: Callable[[], UnitOfWork]
    _note_queries: NoteQueries
    _page_tokens: PageTokens
    _now: Callable[[], datetime]

    async def CreateOrderNote(self, request: pb.CreateOrderNoteRequest, context: Context) -> pb.CreateOrderNoteResponse:
        order_id = require_id(request.note.order_id, "note.order_id")
        author_id = require_id(request.note.author_id, "note.author_id")
        note = await create_note(self._uow(), order_id, author_id, request.note.body, self._now())
        return pb.CreateOrderNoteResponse(note=order_note_message(note))

    async def UpdateOrderNote(self, request: pb.UpdateOrderNoteRequest, context: Context) -> pb.UpdateOrderNoteResponse:
        note_id = require_id(request.note.id, "note.id")
        mask = request.update_mask if request.HasField("update_mask") else None
        # The body is the only field that can be updated.
        body = request.note.body if fields_to_update(request.note, mask) else None
        now = self._now()
        note = await change_note(self._uow(), note_id, request.note.etag, lambda note: note.update(body, now))
        return pb.UpdateOrderNoteResponse(note=order_note_message(note))

    async def PublishOrderNote(
        self, request: pb.PublishOrderNoteRequest, context: Context
    ) -> pb.PublishOrderNoteResponse:
        now = self._now()
        note = await change_note(self._uow(), UUID(request.id), request.etag, lambda note: note.publish(now))
        return pb.PublishOrderNoteResponse(note=order_note_message(note))

    async def DeleteOrderNote(self, request: pb.DeleteOrderNoteRequest, context: Context) -> pb.DeleteOrderNoteResponse:
        await delete_note(self._uow(), UUID(request.id), request.etag, self._now())
        return pb.DeleteOrderNoteResponse()

    async def ListOrderNotes(self, request: pb.ListOrderNotesRequest, context: Context) -> pb.ListOrderNotesResponse:
        found = await self._note_queries.page(parse_note_filter(request), self._page_tokens.page(request))
        return pb.ListOrderNotesResponse(
            notes=map(order_note_message, found.rows),
            next_page_token=self._page_tokens.next(request, found, POSITION),
            total_size=found.total_size,
        )

    async def SearchOrderNotes(
        self, request: pb.SearchOrderNotesRequest, context: Context
    ) -> pb.SearchOrderNotesResponse:
        page = self._page_tokens.page(request)
        query = NoteQuery.parse(request.query, "query")
        found = await self._note_queries.search(query, parse_note_filter(request), page)
        matches = []
        for row in found.rows:
            matches.append(order_note_match_message(row, query))
            # Let other calls run: a snippet can take a millisecond, and a page has up to 1000.
            await asyncio.sleep(0)
        return pb.SearchOrderNotesResponse(
            matches=matches,
            next_page_token=self._page_tokens.next(request, found, MATCH_POSITION),
            total_size=found.total_size if request.include_total_size else 0,
            truncated=found.total_size == MAX_RANKED,
        )
