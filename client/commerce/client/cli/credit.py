"""`commercectl credit`."""

from __future__ import annotations

from commerce.client.cli.commands import Command, group
from commerce.client.generated import methods

_COLUMNS = ("create_time", "type", "account", "amount", "balance_after", "description", "actor")

COMMANDS = (
    Command(
        "balance",
        "users.get_credit_balance",
        methods.GET_CREDIT_BALANCE,
        arguments=("user_id",),
        columns=("available", "held"),
    ),
    Command(
        "grant",
        "users.grant_credit",
        methods.GRANT_CREDIT,
        arguments=("user_id", "amount"),
        question="This grants {amount} to {user_id}.",
    ),
    Command(
        "transfer",
        "users.transfer_credit",
        methods.TRANSFER_CREDIT,
        arguments=("from_user_id", "to_user_id", "amount"),
        question="This moves {amount} from {from_user_id} to {to_user_id}.",
    ),
    Command(
        "entries", "users.list_credit_entries", methods.LIST_CREDIT_ENTRIES, arguments=("user_id",), columns=_COLUMNS
    ),
)

CREDIT = group("credit", "Show and move the credit of users.", COMMANDS)
