"""What becomes of the rows of an import."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from service.application.imports import Done, ImportRow, OnConflict, RowOutcome, import_rows
from service.application.ports.errors import Contention
from service.application.users import change_user
from service.db.database import Database
from service.domain.errors import UserAlreadyExists, UserDeleted
from service.domain.users import User, UserFields
from service.rpc.messages.users import user_message
from tests.support.stores import NOW, SOME_HASH, add_user, some_user, unit_of_work

LATER = NOW + timedelta(seconds=1)
SKIP, UPDATE, FAIL = OnConflict.SKIP, OnConflict.UPDATE, OnConflict.FAIL
CREATED, UPDATED, SKIPPED = Done.CREATED, Done.UPDATED, Done.SKIPPED


def row(fields: UserFields | None = None, password: str = "", **changes: str) -> ImportRow:
    return ImportRow({**(fields or some_user()), **changes}, password)  # type: ignore[typeddict-item] # only known names are passed


async def imported(
    store: Database, rows: Sequence[ImportRow], on_conflict: OnConflict = SKIP, hashes: dict[UUID, str] | None = None
) -> list[RowOutcome]:
    async with unit_of_work(store) as uow:
        outcomes = await import_rows(uow, rows, hashes or {}, on_conflict, LATER)
        await uow.commit(b"")
    return outcomes


async def found(store: Database, row: ImportRow) -> tuple[str, str, str] | None:
    """Return the id, the full name and the etag of the user with the row's username."""
    stored = await store.user_queries.by_username(row.fields["username"])
    if stored is None:
        return None
    user = user_message(stored)
    return user.id, user.full_name, user.etag


def kinds(outcomes: Sequence[RowOutcome]) -> list[object]:
    """Return the outcomes, and of each error the class and the field."""
    return [
        (type(outcome), getattr(outcome, "field", None)) if isinstance(outcome, Exception) else outcome
        for outcome in outcomes
    ]


TAKEN_EMAIL, TAKEN_USERNAME = (UserAlreadyExists, "email"), (UserAlreadyExists, "username")


def test_a_row_is_about_its_folded_email_and_has_an_id_of_its_own() -> None:
    one, two = row(email="Ada@Example.COM"), row(email="Ada@Example.COM")
    assert one.email == "ada@example.com"
    assert one.id.version == 7
    assert one.id != two.id


@pytest.mark.parametrize("on_conflict", OnConflict)
async def test_new_users_are_created(store: Database, on_conflict: OnConflict) -> None:
    rows = [row(full_name="Ada"), row(full_name="Bob")]
    assert await imported(store, rows, on_conflict) == [CREATED, CREATED]
    assert [await found(store, each) for each in rows] == [
        (str(rows[0].id), "Ada", "v1"),
        (str(rows[1].id), "Bob", "v1"),
    ]
    # The same rows again, because their first outcome may be unknown.
    assert await imported(store, rows, on_conflict) == [CREATED, CREATED]
    assert (await found(store, rows[0])) == (str(rows[0].id), "Ada", "v1")


async def test_a_password_is_stored_as_its_hash(store: Database) -> None:
    with_password, without = row(password="secret"), row()  # noqa: S106 - a password of a test
    assert await imported(store, [with_password, without], hashes={with_password.id: SOME_HASH + "x"}) == [CREATED] * 2
    credentials = await store.user_queries.credentials(username=with_password.fields["username"])
    assert credentials is not None
    assert credentials.password_hash == SOME_HASH + "x"
    assert await store.user_queries.credentials(username=without.fields["username"]) is None


async def test_a_new_user_whose_password_is_not_hashed_yet_is_tried_again(store: Database) -> None:
    rows = [row(), row(password="secret")]  # noqa: S106 - a password of a test
    async with unit_of_work(store) as uow:
        with pytest.raises(Contention):
            await import_rows(uow, rows, {}, SKIP, NOW)
    assert await found(store, rows[0]) is None


async def existing(store: Database) -> tuple[User, ImportRow]:
    """Return a user, and a row about it with another full name and another spelling of the e-mail."""
    user = await add_user(store)
    return user, row({"email": user.email.upper(), "username": user.username}, full_name="Ada")


async def test_a_user_who_exists_is_skipped(store: Database) -> None:
    user, about = await existing(store)
    assert await imported(store, [row(), about, row()], SKIP) == [CREATED, SKIPPED, CREATED]
    assert await found(store, about) == (str(user.id), "", "v1")


async def test_a_user_who_exists_is_updated_without_its_email(store: Database) -> None:
    user, about = await existing(store)
    assert await imported(store, [row(), about], UPDATE) == [CREATED, UPDATED]
    assert await found(store, about) == (str(user.id), "Ada", "v2")
    stored = await store.user_queries.by_username(user.username)
    assert user_message(stored).email == user.email
    # Nothing is left to update.
    assert await imported(store, [about], UPDATE) == [SKIPPED]
    assert await found(store, about) == (str(user.id), "Ada", "v2")


async def test_a_user_who_exists_ends_the_import(store: Database) -> None:
    _, about = await existing(store)
    before, after = row(), row()
    assert kinds(await imported(store, [before, about, after], FAIL)) == [CREATED, TAKEN_EMAIL]
    assert await found(store, before) is not None
    assert await found(store, after) is None


async def test_a_deleted_user_is_not_updated(store: Database) -> None:
    user, about = await existing(store)
    async with unit_of_work(store) as uow:
        await change_user(uow, user.id, "", lambda user: user.delete(NOW))
        await uow.commit(b"")
    outcomes = await imported(store, [row(), about, row()], UPDATE)
    assert kinds(outcomes) == [CREATED, (UserDeleted, None), CREATED]


@pytest.mark.parametrize(
    ("on_conflict", "expected"),
    [
        (SKIP, [CREATED, TAKEN_USERNAME, CREATED]),
        (UPDATE, [CREATED, TAKEN_USERNAME, CREATED]),
        (FAIL, [CREATED, TAKEN_USERNAME]),
    ],
)
async def test_a_taken_username_fails_only_its_row(
    store: Database, on_conflict: OnConflict, expected: list[object]
) -> None:
    user = await add_user(store)
    rows = [row(), row(username=user.username), row()]
    assert kinds(await imported(store, rows, on_conflict)) == expected
    assert (await found(store, rows[2]) is None) == (on_conflict is FAIL)
    assert (await found(store, rows[1])) == (str(user.id), "", "v1")


@pytest.mark.parametrize(
    ("on_conflict", "expected"),
    [(SKIP, [CREATED, SKIPPED]), (UPDATE, [CREATED, UPDATED]), (FAIL, [CREATED, TAKEN_EMAIL])],
)
async def test_rows_about_one_user_are_imported_one_after_the_other(
    store: Database, on_conflict: OnConflict, expected: list[object]
) -> None:
    first = row(full_name="Ada")
    second = row({"email": first.email.upper(), "username": first.fields["username"]}, full_name="Ada Lovelace")
    assert kinds(await imported(store, [first, second], on_conflict)) == expected
    stored = await found(store, first)
    assert stored is not None
    assert stored[1] == ("Ada Lovelace" if on_conflict is UPDATE else "Ada")


async def test_a_username_that_two_rows_want_belongs_to_the_first(store: Database) -> None:
    first = row()
    assert kinds(await imported(store, [first, row(username=first.fields["username"]), row()])) == [
        *(CREATED, TAKEN_USERNAME, CREATED)
    ]


async def test_events_of_an_import_have_its_time(store: Database) -> None:
    created = row()
    user, about = await existing(store)
    await imported(store, [created, about], UPDATE)
    for name, times in ((created.fields["username"], (LATER, LATER)), (user.username, (NOW, LATER))):
        message = user_message(await store.user_queries.by_username(name))
        assert (message.create_time.ToDatetime(NOW.tzinfo), message.update_time.ToDatetime(NOW.tzinfo)) == times


def test_every_import_row_has_a_time_ordered_id() -> None:
    before = uuid7()
    assert before < row().id < uuid7()
