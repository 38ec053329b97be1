"""Clients of the server that all tests share."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest

from tests.support.both_clients import KINDS, BothClients, Kind, both_clients

if TYPE_CHECKING:
    from service.server import Server


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Which client a test checks; it runs once for each."""
    found: Kind = request.param
    return found


@pytest.fixture
async def both(kind: Kind, server: "Server") -> AsyncIterator[BothClients]:
    """A client of the shared server."""
    async with both_clients(kind, server.port) as both:
        yield both
