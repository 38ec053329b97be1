import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID, uuid4

import pytest
from argon2 import PasswordHasher

from service.application.credit import grant_credit
from service.application.notes import create_note
from service.application.orders import create_order, transfer_orders
from service.application.ports.errors import Overloaded
from service.application.ports.queries import Page, UserQueries
from service.application.ports.sign_in_attempts import SignInAttempts
from service.application.ports.unit_of_work import UnitOfWork
from service.application.users import change_user, create_user, purge_user, set_password, verify_password
from service.config import PasswordSettings, load
from service.db.database import Database
from service.domain.errors import (
    DomainError,
    EtagMismatch,
    InvalidCredentials,
    InvalidField,
    UserDeleted,
    UserInUse,
    UserNotFound,
)
from service.domain.money import Money
from service.domain.orders import ItemFields, Order, OrderFields
from service.domain.sign_in import SignIn
from service.domain.users import User
from service.passwords import Argon2Passwords
from service.rpc.messages.orders import order_message
from service.rpc.messages.users import user_message
from tests.support.databases import driver_connection
from tests.support.passwords import FAST_PASSWORDS, PASSWORD
from tests.support.sent_statements import sent_statements
from tests.support.stores import NOW, add_user, some_user, unit_of_work

# Far longer than a statement takes to run.
SLOW_PASSWORDS = {"argon2_time_cost": 20, "argon2_memory_kib": 8192}


async def created(store: Database, passwords: Argon2Passwords) -> User:
    async with unit_of_work(store) as uow:
        user = await create_user(uow, passwords, some_user(), PASSWORD, NOW)
        await uow.commit(b"")
    return user


async def hash_of(store: Database, user: User) -> str:
    credentials = await store.user_queries.credentials(username=user.username)
    assert credentials is not None
    return credentials.password_hash


def parts_for_sign_in(
    uow: UnitOfWork, store: Database, passwords: Argon2Passwords, login: str, login_kind: str = "username"
) -> tuple[UnitOfWork, UserQueries, Argon2Passwords, SignInAttempts, SignIn]:
    """Return what `verify_password` needs to let a user sign in, without a limit."""
    attempts = store.sign_in_attempts(b"", ())
    return uow, store.user_queries, passwords, attempts, SignIn(login_kind, login, "tests")


async def signs_in(store: Database, passwords: Argon2Passwords, user: User, password: str = PASSWORD) -> bool:
    async with unit_of_work(store) as uow:
        try:
            row = await verify_password(*parts_for_sign_in(uow, store, passwords, user.username), password, NOW)
        except InvalidCredentials:
            return False
        await uow.commit(b"")
    assert row.id == user.id
    return True


@contextmanager
def stronger() -> Iterator[Argon2Passwords]:
    """A password hasher with other parameters than the one that created the users."""
    passwords = Argon2Passwords(load(PasswordSettings, **{**FAST_PASSWORDS, "argon2_time_cost": 2}))
    try:
        yield passwords
    finally:
        passwords.close()


async def test_a_created_user_signs_in(store: Database, passwords: Argon2Passwords) -> None:
    user = await created(store, passwords)
    assert await signs_in(store, passwords, user)
    assert not await signs_in(store, passwords, user, "another password")


async def test_a_user_without_a_name_costs_no_statement(store: Database, passwords: Argon2Passwords) -> None:
    with sent_statements() as sent, pytest.raises(InvalidField):
        async with unit_of_work(store) as uow:
            await create_user(uow, passwords, {"email": "", "username": "ada"}, PASSWORD, NOW)
    assert sent == []


async def test_no_connection_waits_while_passwords_do(store: Database, passwords: Argon2Passwords) -> None:
    user = await created(store, passwords)
    busy = Argon2Passwords(load(PasswordSettings, **SLOW_PASSWORDS, password_threads=1, password_queue_size=1))
    hashing = [asyncio.create_task(busy.hash(PASSWORD)) for _ in range(2)]
    await asyncio.sleep(0)
    with sent_statements() as sent:
        async with unit_of_work(store) as uow:
            with pytest.raises(Overloaded):
                await create_user(uow, busy, some_user(), PASSWORD, NOW)
            with pytest.raises(Overloaded):
                await set_password(uow, busy, user.id, "another password", NOW, etag="")
        assert sent == []
    await asyncio.gather(*hashing)
    busy.close()


async def test_a_change_without_a_commit_is_not_stored(store: Database, passwords: Argon2Passwords) -> None:
    user = await created(store, passwords)
    async with unit_of_work(store) as uow:
        await change_user(uow, user.id, "", lambda user: user.deactivate(NOW))
        await uow.flush()
    assert await signs_in(store, passwords, user)


async def test_a_stale_etag_prevents_a_change(store: Database, passwords: Argon2Passwords) -> None:
    user = await created(store, passwords)
    tried: list[User] = []
    async with unit_of_work(store) as uow:
        with pytest.raises(EtagMismatch):
            await change_user(uow, user.id, "v2", tried.append)
        await change_user(uow, user.id, "v1", tried.append)
    assert [found.id for found in tried] == [user.id]


async def test_a_missing_user_cannot_be_changed(store: Database, passwords: Argon2Passwords) -> None:
    async with unit_of_work(store) as uow:
        with pytest.raises(UserNotFound):
            await change_user(uow, uuid4(), "", lambda user: user.deactivate(NOW))
        with pytest.raises(UserNotFound):
            await set_password(uow, passwords, uuid4(), "another password", NOW, etag="")


async def test_a_new_password_replaces_the_old_one_and_changes_the_etag(
    store: Database, passwords: Argon2Passwords
) -> None:
    user = await created(store, passwords)
    async with unit_of_work(store) as uow:
        changed = await set_password(uow, passwords, user.id, "another password", NOW, etag=user.etag)
        await uow.commit(b"")
    assert changed.etag != user.etag
    assert await signs_in(store, passwords, user, "another password")
    assert not await signs_in(store, passwords, user)


@pytest.mark.parametrize(("state", "etag", "error"), [("ACTIVE", "v7", EtagMismatch), ("DELETED", "", UserDeleted)])
async def test_a_refused_new_password_leaves_the_old_hash(
    store: Database, passwords: Argon2Passwords, state: str, etag: str, error: type[DomainError]
) -> None:
    user = await created(store, passwords)
    if state == "DELETED":
        async with unit_of_work(store) as uow:
            await change_user(uow, user.id, "", lambda user: user.delete(NOW))
            await uow.commit(b"")
    before = await hash_of(store, user)
    async with unit_of_work(store) as uow:
        with pytest.raises(error):
            await set_password(uow, passwords, user.id, "another password", NOW, etag=etag)
        await uow.commit(b"")
    assert await hash_of(store, user) == before


@pytest.mark.parametrize("transition", [User.deactivate, User.delete], ids=["inactive", "deleted"])
async def test_only_an_active_user_signs_in(
    store: Database, passwords: Argon2Passwords, transition: Callable[[User, datetime], None]
) -> None:
    user = await created(store, passwords)
    async with unit_of_work(store) as uow:
        await change_user(uow, user.id, "", lambda user: transition(user, NOW))
        await uow.commit(b"")
    assert not await signs_in(store, passwords, user)


async def test_signing_in_reads_once_and_writes_nothing(store: Database, passwords: Argon2Passwords) -> None:
    user = await created(store, passwords)
    with sent_statements() as sent:
        assert await signs_in(store, passwords, user)
    assert len(sent) == 1


async def test_a_password_is_rehashed_when_the_parameters_changed(store: Database, passwords: Argon2Passwords) -> None:
    user = await created(store, passwords)
    before = await hash_of(store, user)
    with stronger() as others:
        assert not await signs_in(store, others, user, "another password")
        assert await hash_of(store, user) == before
        assert await signs_in(store, others, user)
        after = await hash_of(store, user)
        assert (after != before, others.needs_rehash(after)) == (True, False)
        assert await signs_in(store, others, user)
        assert await hash_of(store, user) == after
    # The user itself has not changed.
    row = (await store.user_queries.by_ids([str(user.id)]))[0]
    read = user_message(row)
    assert (read.etag, read.update_time.ToDatetime(tzinfo=UTC)) == ("v1", NOW)


async def test_an_old_hash_of_the_password_as_typed_is_accepted_and_replaced(
    store: Database, passwords: Argon2Passwords
) -> None:
    user = await created(store, passwords)
    typed, other = "ve\u0301lo au lait", "v\u00e9lo au lait"
    old = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(typed)
    async with unit_of_work(store) as uow:
        await uow.users.set_password_hash(user.id, old, NOW)
        await uow.commit(b"")
    assert not await signs_in(store, passwords, user, f"{typed}!")
    assert await hash_of(store, user) == old
    assert await signs_in(store, passwords, user, typed)
    assert await hash_of(store, user) != old
    assert await signs_in(store, passwords, user, other)
    with sent_statements() as sent:
        assert await signs_in(store, passwords, user, typed)
    assert len(sent) == 1


class CountedPasswords(Argon2Passwords):
    """Counts the verifications."""

    verified = 0

    async def verify(self, password: str, password_hash: str | None, *, as_typed: bool = False) -> bool:
        self.verified += 1
        return await super().verify(password, password_hash, as_typed=as_typed)


@pytest.mark.parametrize("typed", ["wrong password", "ve\u0301lo au lait"])
async def test_a_wrong_password_costs_the_same_for_a_known_and_an_unknown_user(
    store: Database, passwords: Argon2Passwords, typed: str
) -> None:
    known = await created(store, passwords)
    unknown = User.create({"email": "nobody@example.com", "username": "nobody"}, NOW)
    costs = []
    for user in (known, unknown):
        counted = CountedPasswords(load(PasswordSettings, **FAST_PASSWORDS))
        assert not await signs_in(store, counted, user, typed)
        counted.close()
        costs.append(counted.verified)
    assert costs[0] == costs[1]


async def test_a_rehash_does_not_undo_a_new_password(store: Database, passwords: Argon2Passwords) -> None:
    user = await created(store, passwords)
    old = await hash_of(store, user)
    async with unit_of_work(store) as uow:
        await set_password(uow, passwords, user.id, "another password", NOW, etag="")
        await uow.commit(b"")
    # The other call verified the old password before the new one was set.
    async with unit_of_work(store) as uow:
        await uow.users.replace_password_hash(user.id, old, await passwords.hash(PASSWORD), NOW)
        await uow.commit(b"")
    assert await signs_in(store, passwords, user, "another password")
    assert not await signs_in(store, passwords, user)


async def test_a_created_user_has_the_time_of_the_call(store: Database, passwords: Argon2Passwords) -> None:
    async with unit_of_work(store) as uow:
        created_user = await create_user(uow, passwords, some_user(), PASSWORD, NOW)
        await uow.commit(b"")
    assert (created_user.create_time, created_user.version) == (NOW, 1)
    assert await store.credit_queries.balances(created_user.id) == []


async def test_who_cannot_sign_in_is_not_told_why(store: Database, passwords: Argon2Passwords) -> None:
    async with unit_of_work(store) as uow:
        with pytest.raises(InvalidCredentials, match="no active user"):
            await verify_password(*parts_for_sign_in(uow, store, passwords, "nobody-here"), PASSWORD, NOW)


async def test_a_user_signs_in_by_email_too(store: Database, passwords: Argon2Passwords) -> None:
    user = await created(store, passwords)
    async with unit_of_work(store) as uow:
        row = await verify_password(
            *parts_for_sign_in(uow, store, passwords, user.email.upper(), "email"), PASSWORD, NOW
        )
    assert row.id == user.id


async def test_a_new_or_renewed_hash_has_the_time_of_its_call(
    store: Database, passwords: Argon2Passwords, shared_database_url: str
) -> None:
    user = await created(store, passwords)

    async def hash_time() -> datetime:
        async with driver_connection(shared_database_url) as connection:
            query = "SELECT update_time FROM user_passwords WHERE user_id = $1"
            time: datetime = await connection.fetchval(query, user.id)
        return time

    assert await hash_time() == NOW
    later = NOW + timedelta(seconds=1)
    async with unit_of_work(store) as uow:
        changed = await set_password(uow, passwords, user.id, "another password", later, etag="")
        await uow.commit(b"")
    assert (changed.update_time, await hash_time()) == (later, later)
    latest = NOW + timedelta(seconds=2)
    with stronger() as others:
        async with unit_of_work(store) as uow:
            await verify_password(*parts_for_sign_in(uow, store, others, user.username), "another password", latest)
            await uow.commit(b"")
    assert await hash_time() == latest


# Purges

EURO = Money("EUR", Decimal(1))
ORDER: OrderFields = {"items": [ItemFields("anvil", "Anvil", 1, EURO)]}
LATER = NOW + timedelta(seconds=1)


async def order_of(store: Database, user_id: UUID, *, pay_with_credit: bool = False) -> Order:
    async with unit_of_work(store) as uow:
        if pay_with_credit:
            await grant_credit(uow, user_id, EURO, "", NOW)
        await uow.commit(b"")
    async with unit_of_work(store) as uow:
        order = await create_order(uow, user_id, ORDER, NOW, pay_with_credit=pay_with_credit)
        await uow.commit(b"")
    return order


async def purge(store: Database, user: User, *, force: bool, etag: str = "") -> int:
    async with unit_of_work(store) as uow:
        count = await purge_user(uow, user.id, etag, LATER, force=force)
        await uow.commit(b"")
    return count


async def events_of(store: Database, order: Order) -> list[tuple[str, datetime, list[tuple[str, str, str]]]]:
    timeline = await store.order_queries.events(order.id, Page(100, None, include_total_size=False))
    assert timeline is not None
    return [
        (row.type, row.create_time, [(each["field"], each["old_value"], each["new_value"]) for each in row.changes])
        for row in timeline.rows
    ]


async def test_a_purge_leaves_nothing_of_a_user_except_the_event(store: Database, shared_database_url: str) -> None:
    user = await add_user(store)
    assert await purge(store, user, force=False) == 0
    assert await store.user_queries.by_id(str(user.id)) is None
    async with driver_connection(shared_database_url) as connection:
        rows = await connection.fetch("SELECT * FROM events WHERE aggregate_id = $1", user.id)
    assert [(row["aggregate_type"], row["type"], row["create_time"]) for row in rows] == [("user", "PURGED", LATER)]


@pytest.mark.parametrize("what", ["order", "credit"])
async def test_a_user_with_open_orders_or_credit_is_purged_only_by_force(store: Database, what: str) -> None:
    user = await add_user(store)
    if what == "order":
        await order_of(store, user.id)
    else:
        async with unit_of_work(store) as uow:
            await grant_credit(uow, user.id, EURO, "", NOW)
            await uow.commit(b"")
    with pytest.raises(UserInUse, match="set force") as refused:
        await purge(store, user, force=False)
    assert refused.value.subject == f"users/{user.id}"
    assert await store.user_queries.by_id(str(user.id)) is not None
    assert await purge(store, user, force=True) == (1 if what == "order" else 0)


async def test_a_purge_checks_the_etag_and_that_there_is_a_user(store: Database) -> None:
    user = await add_user(store)
    with pytest.raises(EtagMismatch):
        await purge(store, user, force=True, etag="v2")
    assert await purge(store, user, force=True, etag="v1") == 0
    with pytest.raises(UserNotFound):
        await purge(store, user, force=True)


async def test_a_purge_gives_back_what_others_pay_and_takes_what_the_user_pays(store: Database) -> None:
    payer, owner = await add_user(store), await add_user(store)
    paid = await order_of(store, payer.id, pay_with_credit=True)
    async with unit_of_work(store) as uow:
        await transfer_orders(uow, payer.id, owner.id, NOW)
        await uow.commit(b"")
    others = await order_of(store, owner.id, pay_with_credit=True)
    async with unit_of_work(store) as uow:
        await transfer_orders(uow, owner.id, payer.id, NOW)
        await uow.commit(b"")
    # Both orders belong to the payer of the first now, so the purge of the other is about the second.
    assert await purge(store, owner, force=True) == 0
    (row,) = await store.order_queries.by_ids([str(others.id)])
    changed = order_message(row)
    assert not changed.HasField("credit")
    assert changed.update_time.ToDatetime(UTC) == LATER
    assert (await events_of(store, others))[-1] == ("UPDATED", LATER, [("credit.state", "HELD", "")])
    assert await purge(store, payer, force=True) == 2
    assert await store.order_queries.by_id(str(paid.id)) is None


async def test_a_purge_gives_credit_back_to_the_payer_of_a_purged_order(store: Database) -> None:
    payer, owner = await add_user(store), await add_user(store)
    await order_of(store, payer.id, pay_with_credit=True)
    async with unit_of_work(store) as uow:
        await transfer_orders(uow, payer.id, owner.id, NOW)
        await uow.commit(b"")
    assert await purge(store, owner, force=True) == 1
    (balance,) = await store.credit_queries.balances(payer.id) or ()
    assert (balance.available, balance.held) == (1, 0)
    page = await store.credit_queries.entries(payer.id, None, Page(10, None, include_total_size=False))
    assert page is not None
    assert (page.rows[0].type, page.rows[0].create_time) == ("VOID", LATER)


async def test_a_purge_deletes_the_notes_of_a_user_about_orders_of_others(store: Database) -> None:
    author, owner = await add_user(store), await add_user(store)
    order = await order_of(store, owner.id)
    async with unit_of_work(store) as uow:
        note = await create_note(uow, order.id, author.id, "Fragile", NOW)
        await uow.commit(b"")
    assert await purge(store, author, force=False) == 0
    assert (await events_of(store, order))[-1] == ("NOTE_DELETED", LATER, [("note_id", str(note.id), "")])


@pytest.mark.parametrize("password", ["x" * 7, "x" * 129])
async def test_a_password_of_another_length_is_refused(
    store: Database, passwords: Argon2Passwords, password: str
) -> None:
    user = await created(store, passwords)
    async with unit_of_work(store) as uow:
        for refusing in (
            create_user(uow, passwords, some_user(), password, NOW),
            set_password(uow, passwords, user.id, password, NOW, etag=""),
        ):
            with pytest.raises(InvalidField) as refused:
                await refusing
            assert [violation.field for violation in refused.value.violations] == ["password"]
