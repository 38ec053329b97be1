"""docs/operations/erasure.md, played through: a user that was purged does not come back with an older backup."""

from pathlib import Path

import asyncpg
import commerce.orders.v1.order_service_pb2 as orders_pb
import commerce.users.v1.user_service_pb2 as users_pb
import grpc
import pytest
from commerce.orders.v1.note_pb2 import OrderNote
from google.type.money_pb2 import Money

from tests.recoveries.data import seen, without
from tests.support.clients import Clients, item, new_order
from tests.support.dumps import dsn, dump, restore
from tests.support.failures import fails
from tests.support.pages import Page, Shell
from tests.support.processes import run_command
from tests.support.servers import serving_clients
from tests.support.watching import watch_users

EUROS = 100


async def user_with_everything(clients: Clients, friend_id: str) -> str:
    """Create a user that has credit, an open order that holds it, a transfer, and a note about an order of a friend."""
    user = await clients.create_user(full_name="Grace Hopper", email="grace@example.com", username="grace")
    amount = Money(currency_code="EUR", units=EUROS)
    await clients.users.GrantCredit(users_pb.GrantCreditRequest(user_id=user.id, amount=amount))
    gift = Money(currency_code="EUR", units=1)
    given = users_pb.TransferCreditRequest(from_user_id=user.id, to_user_id=friend_id, amount=gift)
    await clients.users.TransferCredit(given)
    order = new_order(user.id, items=[item("anvil", 1, 10)])
    await clients.orders.CreateOrder(orders_pb.CreateOrderRequest(order=order, pay_with_credit=True))
    of_friend = await clients.create_order(friend_id)
    note = OrderNote(order_id=of_friend.id, author_id=user.id, body="from grace")
    await clients.orders.CreateOrderNote(orders_pb.CreateOrderNoteRequest(note=note))
    return user.id


async def test_a_purged_user_does_not_come_back_with_an_older_backup(
    database_url: str, empty_database_url: str, shell: Shell, tmp_path: Path
) -> None:
    page = Page("docs/operations/erasure.md")
    shell.set(DATABASE_URL=dsn(database_url))
    async with serving_clients(database_url) as clients:
        friend, other = await clients.create_user(), await clients.create_user()
        user_id = await user_with_everything(clients, friend.id)
        await clients.create_order(other.id)
        await dump(database_url, tmp_path / "backup.sql")
        await clients.users.PurgeUser(users_pb.PurgeUserRequest(id=user_id, force=True))
        left = await seen(clients)
    # Twice, as a schedule does.
    await page.run("Collect the purged users", shell)
    await page.run("Collect the purged users", shell)
    (line, again) = (shell.folder / "purged-users").read_text().splitlines()
    assert line == again
    assert line.startswith(f"{user_id} 20")

    await restore(empty_database_url, tmp_path / "backup.sql")
    shell.set(DATABASE_URL=dsn(empty_database_url))
    async with serving_clients(empty_database_url) as clients:
        assert (await clients.users.GetUser(users_pb.GetUserRequest(id=user_id))).user.username == "grace"
    printed = await page.run("After a restore", shell)
    assert printed.startswith("purged 1 of 1 users again; the others are not in the database\n")
    assert page.unused == set()

    await dump(empty_database_url, tmp_path / "after.sql")
    stored = (tmp_path / "after.sql").read_text()
    assert "grace" in (tmp_path / "backup.sql").read_text()
    assert "grace" not in stored.lower()
    # Of the user, only its id is left: in the event that tells of the purge.
    assert stored.count(user_id) == 1
    async with serving_clients(empty_database_url) as clients:
        with fails(grpc.StatusCode.NOT_FOUND, "USER_NOT_FOUND"):
            await clients.users.GetUser(users_pb.GetUserRequest(id=user_id))
        found = await seen(clients)
        assert found.keys() == left.keys()
        assert without(found, friend.id) == without(left, friend.id)
        async with watch_users(clients, earliest=True, user_ids=[user_id]) as stream:
            (event,) = await stream.events(1)
            assert event.actor == "gc"
    printed = await page.run("After a restore", shell)
    assert printed.startswith("purged 0 of 1 users again")


async def test_a_line_without_an_id_purges_nothing(database_url: str, tmp_path: Path) -> None:
    async with serving_clients(database_url) as clients:
        user = await clients.create_user()
        (tmp_path / "purged").write_text(f"\n{user.id} 2026-11-30T12:00:00Z\n\nshop 2026-11-30T12:00:00Z\n")
        ended = await run_command("purge-again", str(tmp_path / "purged"), database_url=database_url)
        message = "Error: line 4 does not begin with the id of a user; nothing was purged\n"
        assert (ended.status, ended.stdout, ended.stderr) == (1, "", message)
        await clients.users.GetUser(users_pb.GetUserRequest(id=user.id))


async def test_one_user_that_cannot_be_purged_again_stops_no_other(
    database_url: str, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    async with serving_clients(database_url) as clients:
        stuck, gone = [await clients.create_user() for _ in range(2)]
    refuse = "BEGIN IF OLD.id = '{}' THEN RAISE 'no'; END IF; RETURN OLD; END"
    await connection.execute(
        f"CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ {refuse.format(stuck.id)} $$;"
        " CREATE TRIGGER refuse BEFORE DELETE ON users FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    (tmp_path / "purged").write_text(f"{stuck.id}\n{gone.id}\n")
    ended = await run_command("purge-again", str(tmp_path / "purged"), database_url=database_url)
    assert (ended.status, ended.stdout.partition(";")[0]) == (1, "purged 1 of 2 users again")
    assert f'"part":"users/{stuck.id}"' in ended.stderr
    assert ended.stderr.endswith("Error: users that could not be purged: 1; the log names them\n")


@pytest.mark.parametrize("command", ["purged-users", "purge-again"])
async def test_a_database_without_a_schema_is_one_line(empty_database_url: str, tmp_path: Path, command: str) -> None:
    (tmp_path / "purged").touch()
    arguments = [str(tmp_path / "purged")] if command == "purge-again" else []
    ended = await run_command(command, *arguments, database_url=empty_database_url)
    assert ended.status == 1
    assert ended.stderr.count("\n") == 1
    assert "run `commerce migrate`" in ended.stderr


async def test_the_times_of_purges_are_in_utc(database_url: str, connection: asyncpg.Connection) -> None:
    await connection.execute(
        "INSERT INTO events (id, aggregate_type, aggregate_id, type, actor, create_time, changes)"
        " VALUES (gen_random_uuid(), 'user', '01890000-0000-7000-8000-000000000001', 'PURGED', 'gc',"
        " '2026-11-30 13:00:00.5+01', '[]')"
    )
    ended = await run_command("purged-users", database_url=database_url)
    assert ended.stdout == "01890000-0000-7000-8000-000000000001 2026-11-30T12:00:00Z\n"
