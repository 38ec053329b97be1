"""What is shown of PostgreSQL where it cannot be asked, or does not know the connections of the server."""

import os
from collections.abc import Mapping
from typing import Any

import commerce.users.v1.user_service_pb2 as users_pb
import pytest

from service.debugging import answers
from tests.support.clients import Clients, connect
from tests.support.databases import driver_connection
from tests.support.debug_sockets import ask, names_of
from tests.support.pgbouncers import PROGRAM, pgbouncer_to
from tests.support.proxies import proxy_to
from tests.support.servers import running_server
from tests.support.waiting import eventually

LOCK_USERS = "LOCK TABLE users IN ACCESS EXCLUSIVE MODE"


async def answered(question: str, before: set[str]) -> dict[str, Any]:
    """Return the answer of the server in this process that was not there before."""
    (name,) = names_of(os.getpid()) - before
    return await ask(name, {"ask": question})


def reading(clients: Clients) -> Any:
    return clients.users.ListUsers(users_pb.ListUsersRequest(page_size=1), metadata=(("x-request-id", "held-up"),))


async def test_a_database_that_does_not_answer_is_a_problem_and_calls_are_shown_all_the_same(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "_DATABASE_SECONDS", 0.5)
    before = names_of(os.getpid())
    async with proxy_to(database_url) as proxy, running_server(proxy.url) as server, connect(server.port) as clients:
        proxy.fall_silent(new_too=True)
        call = reading(clients)

        async def shown() -> list[Mapping[str, Any]]:
            return [each for each in (await answered("calls", before))["calls"] if each["statement"]]

        (found,) = await eventually(shown)
        assert (found["x_request_id"], found["statement"]) == ("held-up", "list_users")
        answer = await answered("statements", before)
        assert answer["sessions"] == []
        assert set(answer["problems"]) == {"primary"}
        call.cancel()


@pytest.mark.skipif(PROGRAM is None, reason="pgbouncer is not installed")
async def test_through_pgbouncer_all_sessions_are_shown_without_names_of_statements(database_url: str) -> None:
    before = names_of(os.getpid())
    async with (
        pgbouncer_to(database_url) as url,
        running_server(url, pgbouncer_mode="transaction", db_pool_min_size=1) as server,
        connect(server.port) as clients,
        driver_connection(database_url) as holder,
    ):
        transaction = holder.transaction()
        await transaction.start()
        await holder.execute(LOCK_USERS)
        call = reading(clients)

        async def blocked() -> list[Mapping[str, Any]]:
            return [each for each in (await answered("statements", before))["sessions"] if each["blocked_by"]]

        (session,) = await eventually(blocked)
        assert (session["is_ours"], session["statement"], session["calls"]) == (True, None, [])
        assert session["blocked_by"] == [holder.get_server_pid()]
        (shown,) = (await answered("calls", before))["calls"]
        assert (shown["state"], shown["statement"]) == ("in statement", "list_users")
        await transaction.rollback()
        await call
