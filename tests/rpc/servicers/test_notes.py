import asyncio
from typing import Any
from uuid import uuid4

import commerce.orders.v1.order_service_pb2 as pb
import commerce.users.v1.user_service_pb2 as users_pb
import grpc
import pytest
from commerce.orders.v1.note_pb2 import OrderNote, OrderNoteState
from commerce.orders.v1.order_pb2 import Order, OrderEventType
from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc.error_details_pb2 import PreconditionFailure

from service.application.ports.queries import MAX_RANKED
from tests.support.clients import Clients
from tests.support.databases import driver_connection
from tests.support.failures import fails, failure_of
from tests.support.locks import until_blocked
from tests.support.sent_statements import sent_statements
from tests.support.servers import serving_clients

DRAFT, PUBLISHED = OrderNoteState.ORDER_NOTE_STATE_DRAFT, OrderNoteState.ORDER_NOTE_STATE_PUBLISHED


async def place(clients: Clients) -> Order:
    user = await clients.create_user()
    return await clients.create_order(user.id)


async def write(clients: Clients, order: Order, body: str = "Call first.", **fields: Any) -> OrderNote:
    note = OrderNote(**{"order_id": order.id, "author_id": order.user_id, "body": body, **fields})
    return (await clients.orders.CreateOrderNote(pb.CreateOrderNoteRequest(note=note))).note


async def update(clients: Clients, note: OrderNote, *paths: str, **fields: Any) -> OrderNote:
    mask = FieldMask(paths=paths) if paths else None
    return (await clients.orders.UpdateOrderNote(pb.UpdateOrderNoteRequest(note=note, update_mask=mask, **fields))).note


async def publish(clients: Clients, note: OrderNote, **fields: Any) -> OrderNote:
    return (await clients.orders.PublishOrderNote(pb.PublishOrderNoteRequest(id=note.id, **fields))).note


async def delete(clients: Clients, note: OrderNote, **fields: Any) -> None:
    await clients.orders.DeleteOrderNote(pb.DeleteOrderNoteRequest(id=note.id, **fields))


async def notes(clients: Clients, order: Order, **fields: Any) -> list[OrderNote]:
    request = pb.ListOrderNotesRequest(**{"order_id": order.id, "include_drafts": True, **fields})
    return list((await clients.orders.ListOrderNotes(request)).notes)


async def search(clients: Clients, query: str, **fields: Any) -> list[str]:
    """Return the bodies found."""
    request = pb.SearchOrderNotesRequest(**{"query": query, "include_drafts": True, **fields})
    return [match.note.body for match in (await clients.orders.SearchOrderNotes(request)).matches]


async def timeline(clients: Clients, order: Order) -> list[tuple[str, str, str]]:
    """Return the types of the order's events after its first, each with the old and new id of its note."""
    response = await clients.orders.ListOrderEvents(pb.ListOrderEventsRequest(order_id=order.id))
    events = []
    for event in response.events[1:]:
        (change,) = event.changes
        assert (change.field, event.order_id) == ("note_id", order.id)
        name = OrderEventType.Name(event.type).removeprefix("ORDER_EVENT_TYPE_")
        events.append((name, change.old_value, change.new_value))
    return events


async def test_a_note_goes_from_draft_to_published(clients: Clients) -> None:
    order = await place(clients)
    author = await clients.create_user()
    note = await write(clients, order, "First line.\nSecond — ünïcode.", author_id=author.id)
    assert (note.order_id, note.author_id, note.state) == (order.id, author.id, DRAFT)
    assert note.body == "First line.\nSecond — ünïcode."
    assert not note.HasField("publish_time")
    assert await notes(clients, order) == [note]
    assert await notes(clients, order, include_drafts=False) == []
    published = await publish(clients, note)
    assert published.state == PUBLISHED
    assert published.publish_time == published.update_time
    assert published.etag != note.etag
    assert await notes(clients, order, include_drafts=False) == [published]
    with fails(grpc.StatusCode.FAILED_PRECONDITION, "ILLEGAL_TRANSITION") as failure:
        await publish(clients, note)
    assert failure.metadata == {"state": "PUBLISHED", "allowed": ""}
    detail = failure.details[PreconditionFailure]
    assert isinstance(detail, PreconditionFailure)
    assert detail.violations[0].subject == f"notes/{note.id}"


@pytest.mark.parametrize("paths", [[], ["body"], ["*"]])
async def test_a_note_is_changed_in_any_state(clients: Clients, paths: list[str]) -> None:
    order = await place(clients)
    note = await write(clients, order)
    draft = await update(clients, OrderNote(id=note.id, body="Ring twice.", etag=note.etag), *paths)
    assert (draft.body, draft.state) == ("Ring twice.", DRAFT)
    published = await publish(clients, note, etag=draft.etag)
    changed = await update(clients, OrderNote(id=note.id, body="Ring thrice."), *paths)
    assert (changed.body, changed.state, changed.publish_time) == ("Ring thrice.", PUBLISHED, published.publish_time)
    assert await notes(clients, order) == [changed]


async def test_an_update_that_changes_nothing_is_no_change(clients: Clients) -> None:
    order = await place(clients)
    note = await write(clients, order)
    assert await update(clients, OrderNote(id=note.id)) == note
    assert await update(clients, OrderNote(id=note.id, body=note.body), "body") == note
    assert len(await timeline(clients, order)) == 1


async def test_a_deleted_note_is_gone(clients: Clients) -> None:
    order = await place(clients)
    note, other = await write(clients, order), await write(clients, order)
    await publish(clients, note)
    await delete(clients, note)
    assert await notes(clients, order) == [other]
    for call in (delete(clients, note), publish(clients, note), update(clients, note)):
        with fails(grpc.StatusCode.NOT_FOUND, "NOTE_NOT_FOUND") as failure:
            await call
        assert failure.message == f"order note {note.id} not found"


async def test_the_order_s_timeline_names_its_notes_and_never_what_they_say(
    clients: Clients, shared_database_url: str
) -> None:
    order = await place(clients)
    note = await write(clients, order, "hush-hush")
    await update(clients, OrderNote(id=note.id, body="hush-hush-hush"))
    await publish(clients, note)
    await delete(clients, note)
    assert await timeline(clients, order) == [
        ("NOTE_CREATED", "", note.id),
        ("NOTE_UPDATED", note.id, note.id),
        ("NOTE_PUBLISHED", note.id, note.id),
        ("NOTE_DELETED", note.id, ""),
    ]
    async with driver_connection(shared_database_url) as connection:
        assert not await connection.fetchval("SELECT count(*) FROM events WHERE changes::text LIKE '%hush%'")


async def test_a_note_does_not_change_its_order(clients: Clients) -> None:
    order = await place(clients)
    note = await write(clients, order)
    await publish(clients, note)
    await delete(clients, note)
    assert (await clients.orders.GetOrder(pb.GetOrderRequest(id=order.id))).order == order


async def test_an_event_of_a_type_from_a_newer_server_does_not_hide_the_others(
    clients: Clients, shared_database_url: str
) -> None:
    order = await place(clients)
    async with driver_connection(shared_database_url) as connection:
        await connection.execute(
            "INSERT INTO events (id, aggregate_type, aggregate_id, type, actor, create_time, changes)"
            " VALUES (uuidv7(), 'order', $1, 'TELEPORTED', 'anonymous', now(), '[]')",
            order.id,
        )
    response = await clients.orders.ListOrderEvents(pb.ListOrderEventsRequest(order_id=order.id))
    types = [event.type for event in response.events]
    assert types == [OrderEventType.ORDER_EVENT_TYPE_CREATED, OrderEventType.ORDER_EVENT_TYPE_UNSPECIFIED]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"order_id": ""}, "note.order_id"),
        ({"order_id": "1"}, "note.order_id"),
        ({"author_id": ""}, "note.author_id"),
        ({"author_id": "1"}, "note.author_id"),
        ({"body": ""}, "note.body"),
        ({"body": "x" * 4001}, "note.body"),
        ({"body": "a\0b"}, "note.body"),
        ({"body": "\r\n" * 4001}, "note.body"),
        ({"body": "a\x0bb"}, "note.body"),
    ],
)
async def test_a_wrong_note_is_refused(clients: Clients, fields: dict[str, str], field: str) -> None:
    order = await place(clients)
    with fails(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", field=field):
        await write(clients, order, **fields)
    assert await notes(clients, order) == []


@pytest.mark.parametrize("body", ["x" * 4000, "\n" * 4000, "🦊" * 4000, "<b>&'\"\\ % ** ' : | ! ( )"])
async def test_any_text_of_the_right_length_can_be_a_note(clients: Clients, body: str) -> None:
    order = await place(clients)
    note = await write(clients, order, body)
    assert await notes(clients, order) == [note]
    assert note.body == body


async def test_line_breaks_of_windows_are_stored_as_line_feeds(clients: Clients) -> None:
    order = await place(clients)
    note = await write(clients, order, "one\r\n\ttwo\rthree" + "\r\n" * 3000)
    assert note.body == "one\n\ttwo\nthree" + "\n" * 3000
    assert await notes(clients, order) == [note]
    assert await update(clients, OrderNote(id=note.id, body=note.body.replace("\n", "\r\n"))) == note
    changed = await update(clients, OrderNote(id=note.id, body="four\r\nfive"))
    assert changed.body == "four\nfive"


async def test_a_note_needs_an_order_and_an_active_author(clients: Clients) -> None:
    order = await place(clients)
    with fails(grpc.StatusCode.NOT_FOUND, "ORDER_NOT_FOUND"):
        await write(clients, order, order_id=str(uuid4()))
    with fails(grpc.StatusCode.NOT_FOUND, "USER_NOT_FOUND"):
        await write(clients, order, author_id=str(uuid4()))
    note = await write(clients, order)
    await clients.users.DeactivateUser(users_pb.DeactivateUserRequest(id=order.user_id))
    with fails(grpc.StatusCode.FAILED_PRECONDITION, "USER_NOT_ACTIVE") as failure:
        await write(clients, order)
    assert failure.message == "the user is INACTIVE; only an ACTIVE user can write notes"
    assert (await publish(clients, note)).state == PUBLISHED


async def test_a_wrong_update_is_refused(clients: Clients) -> None:
    note = await write(clients, await place(clients))
    for path in ("state", "order_id", "author_id", "publish_time", "etag", "nonsense"):
        with fails(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_UPDATE_MASK", field="update_mask"):
            await update(clients, note, path)
    for paths in (["body"], ["*"]):
        with fails(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", field="note.body"):
            await update(clients, OrderNote(id=note.id), *paths)
    with fails(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", field="note.id"):
        await update(clients, OrderNote(body="x"))
    with fails(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", field="id"):
        await publish(clients, OrderNote())
    with fails(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", field="id"):
        await delete(clients, OrderNote(id="x"))


async def test_a_changed_note_is_not_changed_under_its_old_etag(clients: Clients) -> None:
    order = await place(clients)
    note = await write(clients, order)
    changed = await update(clients, OrderNote(id=note.id, body="new"))
    for call in (
        update(clients, OrderNote(id=note.id, body="newer", etag=note.etag)),
        publish(clients, note, etag=note.etag),
        delete(clients, note, etag=note.etag),
    ):
        with fails(grpc.StatusCode.ABORTED, "ETAG_MISMATCH"):
            await call
    assert await notes(clients, order) == [changed]
    await delete(clients, note, etag=changed.etag)


async def test_every_change_of_a_note_allows_a_dry_run(clients: Clients) -> None:
    order = await place(clients)
    tried = pb.CreateOrderNoteRequest(
        note=OrderNote(order_id=order.id, author_id=order.user_id, body="x"), validate_only=True
    )
    assert (await clients.orders.CreateOrderNote(tried)).note.state == DRAFT
    assert await notes(clients, order) == []
    note = await write(clients, order)
    assert (await update(clients, OrderNote(id=note.id, body="x"), validate_only=True)).body == "x"
    assert (await publish(clients, note, validate_only=True)).state == PUBLISHED
    await delete(clients, note, validate_only=True)
    assert await notes(clients, order) == [note]
    assert len(await timeline(clients, order)) == 1


async def test_every_change_of_a_note_under_a_request_id_happens_once(clients: Clients) -> None:
    order = await place(clients)
    create = pb.CreateOrderNoteRequest(
        note=OrderNote(order_id=order.id, author_id=order.user_id, body="x"), request_id=str(uuid4())
    )
    note = (await clients.orders.CreateOrderNote(create)).note
    ids = [str(uuid4()) for _ in range(3)]
    changed = await update(clients, OrderNote(id=note.id, body="y"), request_id=ids[0])
    published = await publish(clients, note, request_id=ids[1])
    await delete(clients, note, request_id=ids[2])
    assert (await clients.orders.CreateOrderNote(create)).note == note
    assert await update(clients, OrderNote(id=note.id, body="y"), request_id=ids[0]) == changed
    assert await publish(clients, note, request_id=ids[1]) == published
    await delete(clients, note, request_id=ids[2])
    assert await notes(clients, order) == []
    assert len(await timeline(clients, order)) == 4


async def test_notes_are_listed_by_order_and_by_author_newest_first(clients: Clients) -> None:
    order, other = await place(clients), await place(clients)
    mine = [await write(clients, order) for _ in range(3)]
    theirs = await write(clients, order, author_id=other.user_id)
    elsewhere = await write(clients, other)
    assert await notes(clients, order) == [theirs, *reversed(mine)]
    assert await notes(clients, order, author_id=other.user_id) == [theirs]
    assert await notes(clients, order, order_id="", author_id=other.user_id) == [elsewhere, theirs]
    assert await notes(clients, order, order_id="", author_id=order.user_id) == mine[::-1]
    assert await notes(clients, Order(id=str(uuid4()))) == []
    with fails(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", field="order_id"):
        await notes(clients, Order())


async def test_notes_come_in_pages(clients: Clients) -> None:
    order = await place(clients)
    written = [await write(clients, order) for _ in range(5)]
    await publish(clients, written[2])
    request = pb.ListOrderNotesRequest(order_id=order.id, include_drafts=True, page_size=2, include_total_size=True)
    listed: list[str] = []
    while True:
        response = await clients.orders.ListOrderNotes(request)
        assert response.total_size == 5
        listed += [note.id for note in response.notes]
        if not response.next_page_token:
            break
        request.page_token = response.next_page_token
        await write(clients, await place(clients))
    assert listed == [note.id for note in reversed(written)]
    request.include_drafts = False
    with fails(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_PAGE_TOKEN", field="page_token"):
        await clients.orders.ListOrderNotes(request)


async def test_notes_are_searched_as_on_the_web(clients: Clients) -> None:
    order = await place(clients)
    word = f"w{uuid4().hex}"
    bodies = [f"{word} Blue paint, the\nsecond coat", f"{word} paint that is blue", f"{word} red Paint"]
    for body in bodies:
        await write(clients, order, body)
    found = {
        f"{word} PAINT": set(bodies),
        f"{word} blue": set(bodies[:2]),
        f'{word} "blue paint"': {bodies[0]},
        f'{word} "the second"': {bodies[0]},
        f"{word} -blue": {bodies[2]},
        f"{word} red or coat": {bodies[0], bodies[2]},
        f"{word} paints": set(),
        f"{word} pain": set(),
        f"{word} & | ! ( : * '": set(bodies),
        f"{word} \u201cblue paint\u201d": {bodies[0]},
        f"{word} blue/paint": {bodies[0]},
        f"{word} -blue/paint": {bodies[1], bodies[2]},
        "!!": set(),
        f"-{word} {word}": set(),
    }
    for query, expected in found.items():
        assert set(await search(clients, query)) == expected, query
        assert set(await search(clients, query, order_id=order.id, author_id=order.user_id)) == expected
        assert await search(clients, query, order_id=str(uuid4())) == []
        assert await search(clients, query, author_id=str(uuid4())) == []
        assert await search(clients, query, include_drafts=False) == []


async def test_a_note_is_found_by_each_part_of_an_address(clients: Clients) -> None:
    order = await place(clients)
    body = "kite.shop/p17 bob.smith@example.com ORD-00000042 D\u2019Angelo Andre\u0301"
    await write(clients, order, body)
    for query in (
        "kite p17",
        "kite.shop",
        "smith",
        "bob.smith@example.com",
        "00000042",
        "angelo",
        "d'angelo",
        "ANDR\u00c9",
    ):
        assert await search(clients, query, order_id=order.id) == [body], query
    for query in ("kite.p17", "smith.bob", "42", "-andre shop"):
        assert await search(clients, query, order_id=order.id) == [], query


async def test_among_notes_a_match_with_the_same_accents_comes_first(clients: Clients) -> None:
    order = await place(clients)
    bodies = ["resume", "r\u00e9sum\u00e9"]
    for body in bodies:
        await write(clients, order, body)
    assert await search(clients, "RESUME", order_id=order.id) == bodies
    assert await search(clients, "R\u00c9SUM\u00c9", order_id=order.id) == bodies[::-1]
    assert await search(clients, "re\u0301sum\u00e9 or other", order_id=order.id) == bodies[::-1]


async def test_a_search_finds_the_current_text_of_a_note(clients: Clients) -> None:
    old, new = uuid4().hex, uuid4().hex
    note = await write(clients, await place(clients), old)
    await publish(clients, note)
    assert await search(clients, old, include_drafts=False) == [old]
    await update(clients, OrderNote(id=note.id, body=new))
    assert (await search(clients, old), await search(clients, new)) == ([], [new])
    await delete(clients, note)
    assert await search(clients, new) == []


async def test_matches_come_best_first_and_in_pages(clients: Clients) -> None:
    order = await place(clients)
    word = f"w{uuid4().hex}"
    counts = [1, 3, 2, 1, 5, 1, 2]
    written = [(count, await write(clients, order, " ".join([word] * count))) for count in counts]
    best = [note.id for count, note in sorted(written, key=lambda each: (each[0], each[1].id), reverse=True)]
    request = pb.SearchOrderNotesRequest(query=word, include_drafts=True, page_size=2, include_total_size=True)
    found: list[str] = []
    while True:
        response = await clients.orders.SearchOrderNotes(request)
        assert response.total_size == 7
        found += [match.note.id for match in response.matches]
        if not response.next_page_token:
            break
        request.page_token = response.next_page_token
    assert found == best
    request.query = "other"
    with fails(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_PAGE_TOKEN", field="page_token"):
        await clients.orders.SearchOrderNotes(request)


async def test_a_snippet_shows_the_words_found_and_is_bounded(clients: Clients) -> None:
    order = await place(clients)
    word = f"w{uuid4().hex}"
    await write(clients, order, f"{'before ' * 200}<i>{word}</i> {'after ' * 200}")
    await write(clients, order, f"{word} {'x' * 3900}")
    request = pb.SearchOrderNotesRequest(query=word.upper(), order_id=order.id, include_drafts=True)
    snippets = [match.snippet for match in (await clients.orders.SearchOrderNotes(request)).matches]
    assert len(snippets) == 2
    for snippet in snippets:
        assert f"**{word}**" in snippet
        assert len(snippet) <= 500


@pytest.mark.parametrize("query", ["", "x" * 201, "a\nb", "\0"])
async def test_a_wrong_query_is_refused(clients: Clients, query: str) -> None:
    with fails(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", field="query"):
        await search(clients, query)


async def test_of_callers_with_one_etag_one_wins(clients: Clients) -> None:
    order = await place(clients)
    note = await write(clients, order)

    calls = [update(clients, OrderNote(id=note.id, body=f"body {number}", etag=note.etag)) for number in range(8)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    errors = [each for each in outcomes if isinstance(each, grpc.aio.AioRpcError)]
    assert [failure_of(error).reason for error in errors] == ["ETAG_MISMATCH"] * 7
    (winner,) = (each for each in outcomes if isinstance(each, OrderNote))
    assert await notes(clients, order) == [winner]
    assert len(await timeline(clients, order)) == 2


async def test_a_note_deleted_meanwhile_is_not_found(clients: Clients) -> None:
    order = await place(clients)
    for _ in range(3):
        note = await write(clients, order)
        outcomes = await asyncio.gather(*(delete(clients, note) for _ in range(4)), return_exceptions=True)
        errors = [each for each in outcomes if isinstance(each, grpc.aio.AioRpcError)]
        assert [failure_of(error).reason for error in errors] == ["NOTE_NOT_FOUND"] * 3


async def test_a_change_waits_for_the_order_and_sees_concurrent_changes(
    clients: Clients, shared_database_url: str
) -> None:
    """Events of an order, those of its notes too, are written under the order's lock."""
    order = await place(clients)
    note = await write(clients, order)
    async with driver_connection(shared_database_url) as connection:
        for change in ("UPDATE order_notes SET version = 7 WHERE id = $1", "DELETE FROM order_notes WHERE id = $1"):
            async with connection.transaction():
                await connection.execute("SELECT FROM orders WHERE id = $1 FOR NO KEY UPDATE", order.id)
                waiting = asyncio.create_task(publish(clients, note, etag="v7"))
                await until_blocked(connection)
                await connection.execute(change, note.id)
            if change.startswith("UPDATE"):
                assert (await waiting).etag == "v8"
            else:
                with fails(grpc.StatusCode.NOT_FOUND, "NOTE_NOT_FOUND"):
                    await waiting


async def test_notes_are_listed_and_searched_with_one_statement_each(clients: Clients) -> None:
    order = await place(clients)
    with sent_statements() as sent:
        await notes(clients, order, include_total_size=True)
        await search(clients, "call", include_total_size=True)
    assert len(sent) == 2, sent


async def test_of_very_many_matches_only_so_many_are_ranked(database_url: str) -> None:
    async with driver_connection(database_url) as connection:
        await connection.execute(f"""
            SET session_replication_role = replica;
            INSERT INTO order_notes (id, order_id, author_id, body, state, version, create_time, update_time, search)
            SELECT gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), body, 'DRAFT', 1, now(), now(),
                note_search(body)
            FROM generate_series(1, {MAX_RANKED + 100}) n,
                LATERAL (SELECT CASE WHEN n <= 60 THEN 'fragile glass' ELSE 'fragile' END AS body) written;
        """)
    async with serving_clients(database_url) as clients:
        common, rare = [
            await clients.orders.SearchOrderNotes(
                pb.SearchOrderNotesRequest(query=query, include_drafts=True, include_total_size=True)
            )
            for query in ("fragile", "fragile glass")
        ]
    assert common.truncated
    assert (common.total_size, len(common.matches)) == (MAX_RANKED, 50)
    assert not rare.truncated
    assert (rare.total_size, len(rare.matches)) == (60, 50)


async def test_notes_that_repeat_all_words_of_a_query_are_ranked_in_time(database_url: str) -> None:
    words = "ada bob cyd dee eve fay gus hal"
    async with driver_connection(database_url) as connection:
        await connection.execute(f"""
            SET session_replication_role = replica;
            INSERT INTO order_notes (id, order_id, author_id, body, state, version, create_time, update_time, search)
            SELECT gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), body, 'DRAFT', 1, now(), now(),
                note_search(body)
            FROM generate_series(1, 500), (SELECT repeat('{words} ', 120) AS body) written;
        """)
    # The limit of a search is 10 s. To compare the positions of all words with each other takes several times as long.
    async with serving_clients(database_url) as clients:
        request = pb.SearchOrderNotesRequest(query=words, include_drafts=True, include_total_size=True)
        assert (await clients.orders.SearchOrderNotes(request)).total_size == 500


async def test_a_search_with_many_words_costs_no_more_than_its_different_words(clients: Clients) -> None:
    order = await place(clients)
    bodies = [f"{uuid4().hex} {'a b ' * 990}" for _ in range(8)]
    for body in bodies:
        await write(clients, order, body)
    query = "a b " * 45
    async with asyncio.timeout(10):
        assert set(await search(clients, query, order_id=order.id)) == set(bodies)
    with fails(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", field="query"):
        await search(clients, " ".join(f"w{number}" for number in range(33)))


async def test_a_snippet_is_made_from_the_beginning_of_a_note(clients: Clients) -> None:
    order = await place(clients)
    word = f"w{uuid4().hex}"
    await write(clients, order, f"beginning {'before ' * 400}{word}")
    request = pb.SearchOrderNotesRequest(query=word, order_id=order.id, include_drafts=True)
    (match,) = (await clients.orders.SearchOrderNotes(request)).matches
    assert match.snippet.startswith("beginning before")
    assert word not in match.snippet
