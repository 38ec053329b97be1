from typing import Any
from uuid import uuid4

import commerce.users.v1.user_service_pb2 as pb
import grpc
import pytest
from commerce.users.v1.user_pb2 import User, UserProfile
from google.protobuf.field_mask_pb2 import FieldMask
from hypothesis import given, settings
from hypothesis import strategies as st

from service.application.ports.queries import MAX_RANKED
from service.config import DatabaseSettings, load
from service.db.connections.engine import create_engine
from service.db.operations import migrate
from service.domain.errors import InvalidField
from service.domain.search import SearchQuery
from tests.support.clients import Clients
from tests.support.databases import driver_connection
from tests.support.failures import fails
from tests.support.sent_statements import sent_statements
from tests.support.servers import serving_clients


def word() -> str:
    return f"w{uuid4().hex[:16]}"


async def search(clients: Clients, query: str, **fields: Any) -> pb.SearchUsersResponse:
    return await clients.users.SearchUsers(pb.SearchUsersRequest(query=query, **fields))


async def found(clients: Clients, query: str, **fields: Any) -> list[str]:
    return [result.user.id for result in (await search(clients, query, **fields)).results]


async def test_a_user_is_found_by_each_of_its_words_best_rank_first(clients: Clients) -> None:
    name = word()
    by_bio = await clients.create_user(profile=UserProfile(bio=f"Works with {name}, on engines."))
    by_full_name = await clients.create_user(full_name=f"Ada {name.upper()}")
    by_username = await clients.create_user(username=f"{name}.ada")
    response = await search(clients, name)
    assert [result.user for result in response.results] == [by_username, by_full_name, by_bio]
    ranks = [result.rank for result in response.results]
    assert ranks == sorted(ranks, reverse=True)
    assert not response.truncated
    assert not response.next_page_token


async def test_every_word_must_be_there_and_the_last_may_be_a_beginning(clients: Clients) -> None:
    first, second = word(), word()
    user = await clients.create_user(full_name=first, profile=UserProfile(bio=f"knows {second}"))
    await clients.create_user(full_name=first)
    assert await found(clients, f"{second} {first}") == [user.id]
    assert await found(clients, f"{first} {second[:9]}") == [user.id]
    assert await found(clients, f"{first[:9]} {second}") == []


async def test_a_whole_word_comes_before_a_beginning(clients: Clients) -> None:
    name = word()
    whole = await clients.create_user(username=f"{name}.x")
    beginning = await clients.create_user(username=f"{name}x")
    itself = await clients.create_user(username=name)
    assert await found(clients, name.upper()) == [itself.id, whole.id, beginning.id]


async def test_accents_are_ignored_and_a_match_with_the_same_ones_comes_first(clients: Clients) -> None:
    name = word()
    plain, composed, decomposed = [
        (await clients.create_user(full_name=f"{name}{letter}")).id for letter in ("e", "\u00e9", "e\u0301")
    ]
    accented = {composed, decomposed}
    by_plain, by_accented = await found(clients, f"{name}e"), await found(clients, f"{name}\u00c9")
    assert (by_plain[0], set(by_plain[1:])) == (plain, accented)
    assert (set(by_accented[:2]), by_accented[2]) == (accented, plain)
    assert await found(clients, f"{name}E\u0301") == by_accented


@pytest.mark.parametrize(
    "punctuated",
    [
        *("{0}.{1}", "{0}-{1}", "{0}_{1}", "{0}@{1}.com", "https://{0}/{1}?x=1", "<{0}>&{1};"),
        *("{0}\u2019{1}", "\u201c{0}\u201d\u2026{1}", "{0}\u2014{1}", "{0}\u3001{1}"),
    ],
)
async def test_punctuation_only_separates_words(clients: Clients, punctuated: str) -> None:
    first, second = word(), word()
    user = await clients.create_user(profile=UserProfile(bio=punctuated.format(first, second)))
    assert await found(clients, second) == [user.id]
    assert await found(clients, punctuated.format(first, second)) == [user.id]


async def test_a_search_follows_every_change(clients: Clients, shared_database_url: str) -> None:
    name, bio, renamed = word(), word(), word()
    user = await clients.create_user(full_name=name, profile=UserProfile(bio=bio))
    await clients.users.UpdateUser(pb.UpdateUserRequest(user=User(id=user.id, full_name=renamed)))
    assert [await found(clients, text) for text in (name, renamed, f"{bio} {renamed}")] == [[], [user.id], [user.id]]
    emptied = pb.UpdateUserRequest(user=User(id=user.id), update_mask=FieldMask(paths=["profile.bio"]))
    await clients.users.UpdateUser(emptied)
    assert [await found(clients, text) for text in (bio, renamed)] == [[], [user.id]]
    await clients.users.UpdateUser(pb.UpdateUserRequest(user=User(id=user.id, profile=UserProfile(bio=bio))))
    assert await found(clients, bio) == [user.id]
    async with driver_connection(shared_database_url) as connection:
        await connection.execute("DELETE FROM user_profiles WHERE user_id = $1", user.id)
    assert [await found(clients, text) for text in (bio, renamed)] == [[], [user.id]]


async def test_deleted_users_are_found_only_when_asked_for(clients: Clients) -> None:
    name = word()
    user = await clients.create_user(username=name)
    await clients.users.DeleteUser(pb.DeleteUserRequest(id=user.id))
    assert await found(clients, name) == []
    assert await found(clients, name, show_deleted=True) == [user.id]


async def test_pages_go_on_where_the_last_one_ended_also_among_equal_ranks(clients: Clients) -> None:
    name = word()
    ids = {(await clients.create_user(full_name=name)).id for _ in range(5)}
    ids |= {(await clients.create_user(username=f"{name}.{number}")).id for number in range(2)}
    seen, token = [], ""
    while True:
        response = await search(clients, name, page_size=2, page_token=token, include_total_size=True)
        assert response.total_size == 7
        seen += [result.user.id for result in response.results]
        if not (token := response.next_page_token):
            break
    assert len(seen) == 7
    assert set(seen) == ids
    assert seen == await found(clients, name)
    assert not (await search(clients, name)).total_size


async def test_a_page_token_is_for_one_query(clients: Clients) -> None:
    name = word()
    for _ in range(2):
        await clients.create_user(full_name=name)
    token = (await search(clients, name, page_size=1)).next_page_token
    with fails(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_PAGE_TOKEN", field="page_token"):
        await search(clients, f"{name} x", page_token=token)


@pytest.mark.parametrize("query", ["", "   ", "...", "-_@", "'; --", "\\", "a\0b", "x" * 201, "…"])
async def test_a_query_without_a_word_is_refused(clients: Clients, query: str) -> None:
    with fails(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", field="query"):
        await search(clients, query)


@pytest.mark.parametrize(
    "query", ["a & | ! b", "ada:*A", "<-> x", "'ada", "a''b", "\\'x", "100%", "日本", "é", "1e5 2", "x" * 200]
)
async def test_no_query_is_read_as_more_than_words(clients: Clients, query: str) -> None:
    await search(clients, query)


@settings(deadline=None)
@given(st.text(max_size=200))
def test_a_query_is_either_words_without_punctuation_or_refused(text: str) -> None:
    try:
        query = SearchQuery.parse(text, "query")
    except InvalidField:
        assert not any(character.isalnum() for character in text)
    else:
        assert query.words
        assert not set("'\\:*&|!()<> ") & set("".join(query.words))


async def test_a_search_is_one_statement(clients: Clients) -> None:
    with sent_statements() as sent:
        await search(clients, word(), include_total_size=True)
    assert len(sent) == 1


async def test_users_of_earlier_schemas_and_of_the_previous_release_are_found(empty_database_url: str) -> None:
    engine = create_engine(load(DatabaseSettings, DATABASE_URL=empty_database_url), pool_size=1)
    insert = """
        WITH made AS (
            INSERT INTO users (id, email, username, full_name, superuser, state, version, create_time, update_time)
            SELECT
                gen_random_uuid(), name || n || '@a.example', name || '.' || n, 'Ada', false, 'ACTIVE', 1, now(), now()
            FROM generate_series(1, 2500) n, (SELECT $1::text AS name) RETURNING id, username
        )
        INSERT INTO user_profiles (user_id, bio, avatar_url)
        SELECT id, 'engines', '' FROM made WHERE right(username, 1) = '7'
    """
    try:
        await migrate.upgrade(engine, "0005")
        async with driver_connection(empty_database_url) as connection:
            await connection.execute(insert, "before")
            await migrate.upgrade(engine)
            await connection.execute(insert, "after")
            assert not await connection.fetchval("SELECT count(*) FROM users WHERE search IS NULL")
    finally:
        await engine.dispose()
    async with serving_clients(empty_database_url) as clients:
        for name in ("before", "after"):
            assert (await search(clients, f"{name} engines", include_total_size=True)).total_size == 250
            assert (await search(clients, f"ada {name}", include_total_size=True)).total_size == 2500


async def test_of_very_many_matches_only_so_many_are_ranked(database_url: str) -> None:
    async with driver_connection(database_url) as connection:
        await connection.execute(f"""
            SET session_replication_role = replica;
            INSERT INTO users (
                id, email, username, full_name, superuser, state, version, create_time, update_time, search
            )
            SELECT gen_random_uuid(), n || '@example.com', username, 'Ada', false, 'ACTIVE', 1, now(), now(),
                user_search(username, 'Ada', '')
            FROM generate_series(1, {MAX_RANKED + 100}) n,
                LATERAL (SELECT CASE n WHEN {MAX_RANKED + 100} THEN 'ada' ELSE 'user.' || n END AS username) named;
        """)
    async with serving_clients(database_url) as clients:
        rare = await search(clients, "user 1234", include_total_size=True)
        common = await search(clients, "ADA", include_total_size=True)
        beginning = await search(clients, "u", include_total_size=True)
        rest = await search(clients, "ADA", include_total_size=True, page_token=common.next_page_token)
    assert [result.user.username for result in rare.results] == ["user.1234"]
    assert not rare.truncated
    for response in (common, beginning):
        assert response.truncated
        assert response.total_size == MAX_RANKED
        assert len(response.results) == 50
    assert common.results[0].user.username == "ada", "the user of this name is never left out"
    assert not {result.user.id for result in rest.results} & {result.user.id for result in common.results}
