from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.conftest import cloned
from tests.sql.calls import Servers, both_servers, readable_call, ways_of
from tests.sql.catalogue import catalogue, compiled
from tests.sql.golden import check, check_names
from tests.wire import METHODS

FOLDER = Path(__file__).parent / "methods"


@pytest.fixture(scope="module")
async def servers(postgres_url: str, template_url: str) -> AsyncIterator[Servers]:
    async with cloned(postgres_url, template_url) as url, both_servers(url) as servers:
        yield servers


@pytest.fixture(scope="module")
async def names() -> dict[str, str]:
    return {str(compiled(statement)): name for name, statement in (await catalogue()).items()}


@pytest.mark.parametrize("method", sorted(METHODS))
async def test_a_golden_file_shows_the_statements_of_a_call(
    servers: Servers, names: dict[str, str], method: str
) -> None:
    check(FOLDER, method, readable_call(method, await ways_of(servers, method), names))


def test_every_method_has_a_golden_file_and_no_other_has() -> None:
    check_names(FOLDER, METHODS)
