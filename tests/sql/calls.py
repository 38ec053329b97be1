"""The statements that a call of each method sends, on the fast path and in a transaction."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple
from uuid import uuid4

from tests.conftest import running_server
from tests.sent import sent_statements
from tests.sql.formatting import format_sql
from tests.support import Clients, connect
from tests.wire import GOOD_REQUESTS, MUTATIONS, call

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
        running_server(database_url) as with_fast_path,
        running_server(database_url, fast_path=False) as without,
        connect(with_fast_path.port) as fast_path,
        connect(without.port) as transactions,
    ):
        yield Servers(fast_path, transactions)


async def statements_of(clients: Clients, method: str) -> list[str]:
    """Return the texts of the statements that a call sends, with BEGIN and COMMIT."""
    request = await GOOD_REQUESTS[method](clients)
    if method in MUTATIONS:
        request.request_id = str(uuid4())
    with sent_statements(with_control=True) as sent:
        await call(clients.channel, method, request)
    return _in_order([text for text, _ in sent if _NUMBER_BLOCKS not in text])


def _in_order(texts: list[str]) -> list[str]:
    """Put BEGIN before the first statement of its transaction: SQLAlchemy reports that before the driver sends either."""
    for index, text in enumerate(texts[1:], 1):
        if text.startswith("BEGIN"):
            texts[index - 1 : index + 1] = [text, texts[index - 1]]
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
