"""Conversions of credit to messages."""

from commerce.users.v1.credit_pb2 import CreditAccount as CreditAccountMessage
from commerce.users.v1.credit_pb2 import CreditBalance as CreditBalanceMessage
from commerce.users.v1.credit_pb2 import CreditEntry as CreditEntryMessage
from commerce.users.v1.credit_pb2 import CreditEntryType

from service.application.ports.queries import Row
from service.domain.credit import CreditAccount
from service.rpc.messages.values import money, timestamp

# The attributes of a row that form its position in a list of entries.
POSITION = ("position",)


def credit_balance_message(account: CreditAccount | Row) -> CreditBalanceMessage:
    """Return the message for a user's credit in one currency, given as an entity or a row."""
    return CreditBalanceMessage(
        available=money(account.currency, account.available), held=money(account.currency, account.held)
    )


def credit_entry_message(entry: Row) -> CreditEntryMessage:
    """Return the message for a row of the ledger."""
    return CreditEntryMessage(
        id=str(entry.id),
        transaction_id=str(entry.transaction_id),
        user_id=str(entry.user_id),
        account=CreditAccountMessage.Value(f"CREDIT_ACCOUNT_{entry.account}"),
        type=CreditEntryType.Value(f"CREDIT_ENTRY_TYPE_{entry.type}"),
        amount=money(entry.currency, entry.amount),
        balance_after=money(entry.currency, entry.balance_after),
        order_id=str(entry.order_id) if entry.order_id else "",
        description=entry.description,
        actor=entry.actor,
        on_behalf_of=str(entry.on_behalf_of) if entry.on_behalf_of else "",
        create_time=timestamp(entry.create_time),
    )
