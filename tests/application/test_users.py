import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from argon2 import PasswordHasher

from service.application.ports.errors import Overloaded
from service.application.ports.unit_of_work import UnitOfWork
from service.application.users import change_user, create_user, set_password, verify_password
from service.config import PasswordSettings, load
from service.db.database import Database
from service.domain.errors import DomainError, EtagMismatch, InvalidCredentials, InvalidField, UserDeleted, UserNotFound
from service.domain.users import User, UserFields
from service.passwords import Argon2Passwords
from service.rpc.messages.users import user_message
from tests.support.passwords import FAST_PASSWORDS, PASSWORD
from tests.support.sent_statements import sent_statements

# Far longer than a statement takes to run.
SLOW_PASSWORDS = {"argon2_time_cost": 20, "argon2_memory_kib": 8192}
NOW = datetime(2026, 1, 2, tzinfo=UTC)


def unit_of_work(store: Database) -> AbstractAsyncContextManager[UnitOfWork]:
    return store.unit_of_work(actor="tests", request=None, time_left=lambda: 30.0)


def some_user() -> UserFields:
    name = f"u{uuid4().hex[:20]}"
    return {"email": f"{name}@example.com", "username": name}


async def created(store: Database, passwords: Argon2Passwords) -> User:
    async with unit_of_work(store) as uow:
        user = await create_user(uow, passwords, some_user(), PASSWORD, NOW)
        await uow.commit(b"")
    return user


async def hash_of(store: Database, user: User) -> str:
    credentials = await store.user_queries.credentials(username=user.username)
    assert credentials is not None
    return credentials.password_hash


async def signs_in(store: Database, passwords: Argon2Passwords, user: User, password: str = PASSWORD) -> bool:
    async with unit_of_work(store) as uow:
        try:
            row = await verify_password(
                uow, store.user_queries, passwords, password, NOW, email=None, username=user.username
            )
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
