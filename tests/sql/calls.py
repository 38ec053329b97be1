"""The statements that a call of each method sends, on the fast path and in a transaction."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from uuid import uuid4

from tests.sql.formatting import format_sql
from tests.support.clients import Clients
from tests.support.methods import MUTATIONS, call
from tests.support.requests import GOOD_REQUESTS
from tests.support.sent_statements import sent_statements
from tests.support.servers import serving_clients

# Only every 32nd order takes a new block of numbers.
_NUMBER_BLOCKS = "order_number_seq"


class Servers(NamedTuple):
    """Clients of two servers on one database."""

    fast_path: Clients
    transactions: Clients


@asynccontextmanager
async def both_servers(database_url: str) -> AsyncIterator[Servers]:
    """Run a server with the fast path and one without until the block ends."""
    async with (
        serving_clients(database_url) as fast_path,
        serving_clients(database_url, fast_path=False) as transactions,
    ):
        yield Servers(fast_path, transactions)


async def request_for(clients: Clients, method: str) -> Any:
    """Return a request that succeeds, with a request id if the method takes one."""
    request = await GOOD_REQUESTS[method](clients)
    if method in MUTATIONS:
        request.request_id = str(uuid4())
    return request


async def statements_of(clients: Clients, method: str) -> list[str]:
    """Return the texts of the statements that a call sends, with BEGIN and COMMIT."""
    request = await request_for(clients, method)
    with sent_statements(with_control=True) as sent:
        await call(clients.channel, method, request)
    texts = [text for text, _ in sent if _NUMBER_BLOCKS not in text]
    for index, text in enumerate(texts):
        if text.startswith("BEGIN"):
            # SQLAlchemy reports the first statement of a transaction before the driver sends BEGIN, to which the driver
            # adds the default isolation level if the connection had another one before.
            texts[index - 1 : index + 1] = ["BEGIN;", texts[index - 1]]
    return texts


async def ways_of(servers: Servers, method: str) -> dict[str, list[str]]:
    """Return the statements of a method by the way in which it sends them; a read has one way."""
    with_fast_path = await statements_of(servers.fast_path, method)
    without = await statements_of(servers.transactions, method)
    if with_fast_path != without:
        return {"On the fast path": with_fast_path, "In a transaction": without}
    return {"In a transaction" if "COMMIT;" in without else "Without a transaction": without}


def readable_call(method: str, ways: Mapping[str, list[str]], names: Mapping[str, str]) -> str:
    """Return the content of a method's golden file.

    Args:
        method: its name.
        ways: its statements.
        names: the names of statements by their texts.
    """
    lines = [f"-- {method}" + (", with a request id" if method in MUTATIONS else "")]
    if method == "CreateOrder":
        lines.append("-- Every 32nd order also takes the statement next_order_numbers.")
    for way, statements in ways.items():
        lines += ["", f"-- {way}:"]
        for text in statements:
            name = [f"-- {names[text]}"] if text in names else []
            lines += ["", *name, format_sql(text)]
    return "\n".join(lines) + "\n"
