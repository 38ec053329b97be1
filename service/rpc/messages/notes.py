"""Conversions of order notes from and to messages."""

from uuid import UUID

from commerce.orders.v1.note_pb2 import OrderNote as OrderNoteMessage
from commerce.orders.v1.note_pb2 import OrderNoteMatch as OrderNoteMatchMessage
from commerce.orders.v1.note_pb2 import OrderNoteState
from commerce.orders.v1.order_service_pb2 import ListOrderNotesRequest, SearchOrderNotesRequest

from service.application.ports.queries import NoteFilter, Row
from service.domain.errors import InvalidField
from service.domain.events import etag_of
from service.domain.notes import NoteState, OrderNote
from service.domain.search import NoteQuery
from service.rpc.messages.values import timestamp

_STATES = {state: OrderNoteState.Value(f"ORDER_NOTE_STATE_{state}") for state in NoteState}
# The attributes of a row that form its position in a list of notes, and in a list of matches.
POSITION = ("create_time", "id")
MATCH_POSITION = ("rank", "id")


def order_note_message(note: OrderNote | Row) -> OrderNoteMessage:
    """Return the message for a note, given as an entity or a row."""
    return OrderNoteMessage(
        id=str(note.id),
        order_id=str(note.order_id),
        author_id=str(note.author_id),
        body=note.body,
        state=_STATES[note.state],
        etag=etag_of(note.version),
        create_time=timestamp(note.create_time),
        update_time=timestamp(note.update_time),
        publish_time=timestamp(note.publish_time),
    )


def order_note_match_message(match: Row, query: NoteQuery) -> OrderNoteMatchMessage:
    """Return the message for a row that a search found."""
    return OrderNoteMatchMessage(note=order_note_message(match), snippet=query.snippet(match.body))


def parse_note_filter(request: ListOrderNotesRequest | SearchOrderNotesRequest) -> NoteFilter:
    """Return the filter for the notes that a request selects; raises InvalidField if a list request has no filter."""
    if isinstance(request, ListOrderNotesRequest) and not (request.order_id or request.author_id):
        raise InvalidField.at("order_id", "must be set unless author_id is set")
    return NoteFilter(
        order_id=UUID(request.order_id) if request.order_id else None,
        author_id=UUID(request.author_id) if request.author_id else None,
        include_drafts=request.include_drafts,
    )
