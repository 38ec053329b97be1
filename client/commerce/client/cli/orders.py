"""`commercectl orders`."""

from __future__ import annotations

from commerce.client.cli.commands import Command, group
from commerce.client.cli.watching import watch_command
from commerce.client.generated import methods

_COLUMNS = ("order_number", "status", "total_amount", "create_time", "user_id", "id")
_EVENTS = ("create_time", "type", "order_id", "status", "user_id", "changes", "actor")

COMMANDS = (
    Command("get", "orders.get", methods.GET_ORDER, "ORDER"),
    Command("list", "orders.list", methods.LIST_ORDERS, columns=_COLUMNS),
    Command("create", "orders.create", methods.CREATE_ORDER),
    Command("update", "orders.update", methods.UPDATE_ORDER, "ORDER"),
    Command("confirm", "orders.confirm", methods.CONFIRM_ORDER, "ORDER"),
    Command("process", "orders.process", methods.PROCESS_ORDER, "ORDER"),
    Command("ship", "orders.ship", methods.SHIP_ORDER, "ORDER"),
    Command("deliver", "orders.deliver", methods.DELIVER_ORDER, "ORDER"),
    Command("cancel", "orders.cancel", methods.CANCEL_ORDER, "ORDER", question="This cancels the order {resource}."),
    Command(
        "events",
        "orders.list_events",
        methods.LIST_ORDER_EVENTS,
        arguments=("order_id",),
        columns=("create_time", "type", "status", "changes", "actor"),
    ),
    Command("tag", "orders.add_tags", methods.ADD_ORDER_TAGS, "ORDER", arguments=("tags",)),
    Command("untag", "orders.remove_tags", methods.REMOVE_ORDER_TAGS, "ORDER", arguments=("tags",)),
    Command("tags", "orders.list_tags", methods.LIST_TAGS, columns=("name", "order_count")),
    Command(
        "transfer",
        "orders.transfer",
        methods.TRANSFER_ORDERS,
        arguments=("from_user_id", "to_user_id"),
        question="This moves all orders of {from_user_id} to {to_user_id}.",
    ),
    Command(
        "statistics",
        "orders.get_statistics",
        methods.GET_ORDER_STATISTICS,
    ),
)

ORDERS = group(
    "orders", "Place, find and move orders.", COMMANDS, watch_command("orders", methods.WATCH_ORDERS, _EVENTS)
)
