"""`commercectl notes`."""

from __future__ import annotations

from commerce.client.cli.commands import Command, group
from commerce.client.generated import methods

# The id first: a note has no other name.
_COLUMNS = ("id", "state", "body", "create_time", "order_id", "author_id")

COMMANDS = (
    Command("list", "orders.list_notes", methods.LIST_ORDER_NOTES, columns=_COLUMNS),
    Command(
        "search",
        "orders.search_notes",
        methods.SEARCH_ORDER_NOTES,
        arguments=("query",),
        columns=("note.id", "snippet", "note.order_id", "note.author_id"),
    ),
    Command("create", "orders.create_note", methods.CREATE_ORDER_NOTE, arguments=("order_id", "body")),
    Command("update", "orders.update_note", methods.UPDATE_ORDER_NOTE, "NOTE"),
    Command("publish", "orders.publish_note", methods.PUBLISH_ORDER_NOTE, "NOTE"),
    Command(
        "delete",
        "orders.delete_note",
        methods.DELETE_ORDER_NOTE,
        "NOTE",
        question="This deletes the note {resource}.",
    ),
)

NOTES = group("notes", "Write and find notes about orders.", COMMANDS)
