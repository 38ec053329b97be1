"""A client of the user and order services: retries, typed errors, plain Python values.

    from commerce.client import Client, Money

    with Client("127.0.0.1:50051") as client:
        ada = client.users.get(username="ada")
        client.users.grant_credit(user_id=ada.id, amount=Money("10.00", "EUR"))

`AsyncClient` has the same methods, to be awaited. Errors are in `commerce.client.errors`, the enums of the messages in
`commerce.client.enums`.
"""

# First, because gRPC reads a variable that it sets.
from commerce.client.lifecycle import ClientClosed, ForkUnsupported  # isort: skip
from commerce.client.aio.client import AsyncClient
from commerce.client.credentials import Tls, Token
from commerce.client.cursors import (
    AsyncCallableCursorStore,
    AsyncCursorStore,
    CallableCursorStore,
    CursorStore,
    FileCursorStore,
    MemoryCursorStore,
)
from commerce.client.failures import CommerceError, Outcome
from commerce.client.options import CallOptions, ReadOptions
from commerce.client.pages import Page
from commerce.client.retries import NO_RETRIES, RetryBudget, RetryPolicy
from commerce.client.sync.client import Client
from commerce.client.telemetry import Telemetry
from commerce.client.values import Id, Money, derive_request_id, to_datetime

__all__ = [
    "NO_RETRIES",
    "AsyncCallableCursorStore",
    "AsyncClient",
    "AsyncCursorStore",
    "CallOptions",
    "CallableCursorStore",
    "Client",
    "ClientClosed",
    "CommerceError",
    "CursorStore",
    "FileCursorStore",
    "ForkUnsupported",
    "Id",
    "MemoryCursorStore",
    "Money",
    "Outcome",
    "Page",
    "ReadOptions",
    "RetryBudget",
    "RetryPolicy",
    "Telemetry",
    "Tls",
    "Token",
    "derive_request_id",
    "to_datetime",
]
