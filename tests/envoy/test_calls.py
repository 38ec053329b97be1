"""REST by Envoy: what callers see."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import commerce.users.v1.user_service_pb2 as users_pb
import grpc
import httpx
import pytest
from commerce.users.v1.user_service_pb2_grpc import UserServiceStub
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.envoy.conftest import ROCKET, Rest
from tests.support.envoys import CONFIG, NAME_IN_CERTIFICATE, PROGRAM
from tests.support.http_calls import error_info
from tests.support.logs import logged
from tests.support.passwords import PASSWORD
from tests.support.waiting import eventually

pytestmark = pytest.mark.skipif(not PROGRAM.exists(), reason="the package with Envoy is made for Linux")

TOO_LARGE = 1_100_000


def problem(response: httpx.Response) -> tuple[int, int, str]:
    """Return the HTTP status of an error, its code and its reason."""
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    return response.status_code, body["code"], error_info(body)["reason"]


async def test_a_resource_is_created_read_changed_and_deleted(rest: Rest) -> None:
    user = await rest.new_user()
    path = f"/v1/users/{user['id']}"
    assert (await rest.get(path)).json()["user"] == user
    # Names of fields as in JSON and as in the protos.
    for mask, field in (("full_name,profile.bio", "fullName"), ("fullName,profile.bio", "full_name")):
        body = {field: f"Grace {mask}"[:20], "profile": {"bio": mask}, "username": "not.in.the.mask"}
        changed = await rest.http.patch(path, json=body, params={"update_mask": mask, "request_id": str(uuid4())})
        assert changed.status_code == 200, changed.text
        user = changed.json()["user"]
        assert (user["fullName"], user["profile"]) == (body[field], {"bio": mask})
        assert user["username"] != "not.in.the.mask"
    stale = await rest.http.delete(path, params={"etag": "v1"})
    assert problem(stale) == (409, 10, "ETAG_MISMATCH")
    tried = await rest.http.delete(path, params={"etag": user["etag"], "validateOnly": "true"})
    assert tried.json()["user"]["state"] == "USER_STATE_DELETED"
    assert (await rest.get(path)).json()["user"] == user
    assert (await rest.http.delete(path, params={"etag": user["etag"]})).status_code == 200
    undeleted = await rest.post(f"{path}:undelete")
    assert undeleted.json()["user"]["state"] == "USER_STATE_ACTIVE"


async def test_a_query_has_filters_pages_times_and_lists(rest: Rest) -> None:
    user = await rest.new_user()
    orders = [await rest.new_order(user["id"]) for _ in range(3)]
    for order, tags in zip(orders, (["gift", "b2b & more"], ["gift"], []), strict=True):
        if tags:
            added = await rest.post(f"/v1/orders/{order['id']}:addTags", {"tags": tags})
            assert added.status_code == 200, added.text
    path = f"/v1/users/{user['id']}/orders"

    async def found(**query: Any) -> list[int]:
        response = await rest.get(path, params=query)
        assert response.status_code == 200, response.text
        ids = [order["id"] for order in response.json().get("orders", [])]
        return [index for index, order in enumerate(orders) if order["id"] in ids]

    assert await found() == [0, 1, 2]
    assert await found(tags_any="gift") == [0, 1]
    assert await found(tags_all=["gift", "b2b & more"]) == [0]
    assert await found(statuses=["ORDER_STATUS_PENDING", "ORDER_STATUS_SHIPPED"]) == [0, 1, 2]
    assert await found(statuses="ORDER_STATUS_SHIPPED") == []
    assert await found(**{"createTime.startTime": orders[1]["createTime"]}) == [1, 2]
    assert await found(**{"create_time.end_time": orders[1]["createTime"]}) == [0]
    first = (await rest.get(path, params={"page_size": 2, "includeTotalSize": "true"})).json()
    assert (len(first["orders"]), first["totalSize"]) == (2, "3")
    token = first["nextPageToken"]
    rest_of_it = (await rest.get(path, params={"pageToken": token, "includeTotalSize": "true"})).json()
    assert len(rest_of_it["orders"]) == 1
    ids = [order["id"] for order in orders]
    batch = (await rest.get("/v1/orders:batchGet", params={"ids": ids})).json()["orders"]
    assert [order["id"] for order in batch] == ids


async def test_the_longest_query_reaches_the_service(rest: Rest) -> None:
    """1000 ids are longer than the metadata that the service accepts, in which Envoy would repeat the path."""
    refused = await rest.get("/v1/orders:batchGet", params={"ids": [str(uuid4()) for _ in range(1000)]})
    assert len(str(refused.request.url)) > 40_000
    assert problem(refused) == (404, 5, "ORDER_NOT_FOUND")


async def test_custom_methods_take_their_fields_in_the_body(rest: Rest) -> None:
    user = await rest.new_user()
    order = await rest.new_order(user["id"])
    path = f"/v1/orders/{order['id']}"
    request = {"requestId": str(uuid4()), "etag": order["etag"]}
    confirmed = await rest.post(f"{path}:confirm", request)
    assert confirmed.json()["order"]["status"] == "ORDER_STATUS_CONFIRMED"
    assert (await rest.post(f"{path}:confirm", request)).content == confirmed.content
    assert (await rest.post(f"{path}:process")).status_code == 200
    shipped = await rest.post(f"{path}:ship", {"trackingNumber": "1Z 999"})
    assert shipped.json()["order"]["trackingNumber"] == "1Z 999"
    # Without a body, as `curl -X POST` sends it.
    delivered = await rest.http.post(f"{path}:deliver")
    assert delivered.json()["order"]["status"] == "ORDER_STATUS_DELIVERED"
    late = await rest.post(f"{path}:cancel", {"reason": "too late"})
    assert problem(late) == (400, 9, "ILLEGAL_TRANSITION")
    (violation,) = late.json()["details"][1]["violations"]
    assert violation["type"] == "ILLEGAL_TRANSITION"


async def test_resources_of_resources_have_paths_below_them(rest: Rest) -> None:
    user = await rest.new_user()
    order = await rest.new_order(user["id"])
    written = await rest.post(f"/v1/orders/{order['id']}/notes", {"authorId": user["id"], "body": "call back"})
    note = written.json()["note"]
    assert (note["orderId"], note["state"]) == (order["id"], "ORDER_NOTE_STATE_DRAFT")
    edited = await rest.http.patch(f"/v1/notes/{note['id']}", json={"body": "called", "etag": note["etag"]})
    assert edited.json()["note"]["body"] == "called"
    assert (await rest.post(f"/v1/notes/{note['id']}:publish")).status_code == 200
    for parent in (f"orders/{order['id']}", f"users/{user['id']}"):
        (listed,) = (await rest.get(f"/v1/{parent}/notes")).json()["notes"]
        assert listed["id"] == note["id"]
    credit = {"amount": {"currencyCode": "EUR", "units": "25", "nanos": 500000000}}
    granted = await rest.post(f"/v1/users/{user['id']}:grantCredit", credit)
    assert granted.status_code == 200, granted.text
    (balance,) = (await rest.get(f"/v1/users/{user['id']}/creditBalance")).json()["balances"]
    assert balance["available"] == credit["amount"]


async def test_encoded_characters_mean_what_they_encode(rest: Rest) -> None:
    user = await rest.new_user()
    assert "+" in user["email"]
    encoded = user["email"].replace("+", "%2B").replace("@", "%40")
    for query in (f"email={encoded}", f"username={user['username']}"):
        found = await rest.get(f"/v1/users:lookup?{query}")
        assert found.json()["user"]["id"] == user["id"]
    # As in forms, a plus sign is a space.
    assert problem(await rest.get(f"/v1/users:lookup?email={user['email']}"))[2] == "INVALID_FIELD"
    assert (await rest.get(f"/v1/users/{user['id'].replace('-', '%2D')}")).json()["user"] == user
    assert (await rest.get(f"/v1//users/../users/{user['id'].upper()}")).json()["user"] == user
    # A path with an encoded slash would be another path once it is decoded.
    for path in (f"/v1/users%2F{user['id']}", f"/v1/orders/..%2Fusers%2F{user['id']}", "/v1/users/a%5Cb"):
        assert problem(await rest.get(path)) == (400, 3, "MALFORMED_REQUEST")
    assert problem(await rest.get("/v1/users/%00"))[0] == 400
    assert problem(await rest.get("/v1/users/%E2%82%AC")) == (400, 3, "INVALID_FIELD")


async def test_what_does_not_exist_is_refused(rest: Rest) -> None:
    user = await rest.new_user()
    path = f"/v1/users/{user['id']}"
    malformed = {
        "/v1/customers": 404,
        f"{path}:promote": 404,
        f"{path}/addresses": 404,
        "/": 404,
        # The methods of the HTTP port, and other services.
        "/commerce.users.v1.UserService/GetUser": 404,
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": 404,
        "/v1/users?stats=USER_STATE_ACTIVE": 400,
        "/v1/users?create_time.since=2026-01-01T00:00:00Z": 400,
        "/v1/users?states=ACTIVE": 400,
        "/v1/users?page_size=many": 400,
        "/v1/users?create_time.start_time=yesterday": 400,
        # Two ways to name a user.
        f"{path}?email=ada@example.com": 400,
    }
    for target, status in malformed.items():
        refused = await rest.get(target)
        assert problem(refused) == (status, 3, "MALFORMED_REQUEST"), target
        assert "x-request-id" in refused.headers
    assert problem(await rest.http.put(path, json={}))[0] == 404
    for body in ("{", "[]", '{"etag": 7x}', '{"etag": {}}'):
        refused = await rest.http.post(f"{path}:deactivate", content=body)
        assert problem(refused) == (400, 3, "MALFORMED_REQUEST"), body
    other = await rest.post(f"{path}:deactivate", {"id": str(uuid4())})
    assert problem(other) == (400, 3, "MALFORMED_REQUEST")
    assert (await rest.get(path)).json()["user"] == user


async def test_a_field_of_a_body_that_does_not_exist_is_ignored_as_the_page_says(rest: Rest) -> None:
    """Envoy 1.40 cannot refuse it. If this fails, it can: docs/rest.md and deploy/envoy/README.md are to be changed."""
    user = await rest.new_user()
    changed = await rest.http.patch(f"/v1/users/{user['id']}", json={"name": "Grace", "fullName": "Grace Hopper"})
    assert changed.json()["user"]["fullName"] == "Grace Hopper"


async def test_an_error_has_its_details(rest: Rest) -> None:
    missing = await rest.get(f"/v1/orders/{uuid4()}")
    assert problem(missing) == (404, 5, "ORDER_NOT_FOUND")
    kinds = [detail["@type"].rpartition(".")[2] for detail in missing.json()["details"]]
    assert kinds == ["ErrorInfo", "ResourceInfo"]
    user = await rest.new_user()
    order = {"userId": user["id"], "items": [{**ROCKET, "quantity": 0}]}
    invalid = await rest.post("/v1/orders", order)
    assert problem(invalid) == (400, 3, "INVALID_FIELD")
    assert invalid.json()["details"][1]["fieldViolations"][0]["field"] == "order.items[0].quantity"
    again = await rest.post("/v1/users", {"user": {**user, "email": "b@example.com"}, "password": PASSWORD})
    assert problem(again) == (409, 6, "USER_ALREADY_EXISTS")


async def test_who_calls_is_said_by_the_caller_s_own_headers(rest: Rest) -> None:
    user, other = await rest.new_user(), await rest.new_user()
    path = f"/v1/users/{user['id']}"

    def as_subject(subject: str | None, **headers: str) -> dict[str, str]:
        token = {"authorization": f"Bearer {rest.issuer.token(sub=subject)}"} if subject else {"authorization": ""}
        return {**token, **{name.replace("_", "-"): value for name, value in headers.items()}}

    wrong = {"authorization": "Bearer wrong"}
    assert problem(await rest.get(path, headers=wrong)) == (401, 16, "UNAUTHENTICATED_CALLER")
    # Neither the certificate of Envoy's connection nor what a header says of one is the caller's.
    nobody = as_subject(None, x_forwarded_client_cert="URI=spiffe://example.org/admin")
    assert problem(await rest.get(path, headers=nobody)) == (401, 16, "UNAUTHENTICATED_CALLER")
    assert problem(await rest.get(path, headers=as_subject("stranger"))) == (403, 7, "PERMISSION_MISSING")
    desk = as_subject("desk")
    assert problem(await rest.get(path, headers=desk)) == (403, 7, "PERMISSION_MISSING")
    request_id = f"test-{uuid4()}"
    with logged() as log:
        for_user = as_subject("desk", x_on_behalf_of=user["id"], x_request_id=request_id)
        read = await rest.get(path, headers=for_user)
        line = await log.line(event="call", x_request_id=request_id)
    assert (read.status_code, read.headers["x-request-id"]) == (200, request_id)
    assert (line["caller"], line["on_behalf_of"]) == ("jwt:accounts:desk", user["id"])
    assert problem(await rest.get(f"/v1/users/{other['id']}", headers=for_user))[0] in {403, 404}


async def test_web_pages_cannot_call(rest: Rest) -> None:
    """Neither from their own origin, nor by a name of theirs that points to this machine."""
    name = f"u{uuid4().hex[:20]}"
    body = json.dumps({"user": {"email": f"{name}@example.com", "username": name}, "password": PASSWORD})
    for headers, status in (({"origin": "https://evil.example"}, 403), ({"host": "evil.example"}, 404)):
        refused = await rest.http.post("/v1/users", content=body, headers={**headers, "content-type": "text/plain"})
        assert problem(refused)[0] == status
    assert (await rest.get("/v1/users:lookup", params={"username": name})).status_code == 404


async def test_a_deadline_reaches_the_service(rest: Rest) -> None:
    passed = await rest.get("/v1/tags", headers={"grpc-timeout": "1n"})
    # gRPC itself may be the one that notices, and adds no details.
    assert (passed.status_code, passed.json()["code"]) == (504, 4)
    ends = await rest.get("/v1/users:watch", params={"now": "true"}, headers={"grpc-timeout": "300m"})
    assert json.loads(ends.text.splitlines()[0])["checkpoint"] == {}


async def test_a_stream_is_a_line_for_each_message_as_they_come(rest: Rest) -> None:
    user = await rest.new_user()
    query = {"earliest": "true", "user_ids": [user["id"]]}
    async with rest.http.stream("GET", "/v1/users:watch", params=query) as response, asyncio.timeout(20):
        assert response.status_code == 200
        lines = response.aiter_lines()
        events = await next_events(lines, 1)
        await rest.http.patch(f"/v1/users/{user['id']}", json={"fullName": "Grace"})
        events += await next_events(lines, 1)
    assert [event["type"] for event in events] == ["USER_EVENT_TYPE_CREATED", "USER_EVENT_TYPE_UPDATED"]
    # An error before the first message is an error, not an empty stream.
    refused = await rest.get("/v1/users:watch", params={"cursor": "not-a-cursor"})
    assert problem(refused) == (400, 3, "INVALID_CURSOR")


async def next_events(lines: AsyncIterator[str], count: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while len(found) < count:
        message = json.loads(await anext(lines))
        found += [message["event"]] if "event" in message else []
    return found


async def test_the_status_of_a_stream_is_in_its_trailers(rest: Rest) -> None:
    user = await rest.new_user()
    await rest.new_order(user["id"])
    token = rest.http.headers["authorization"]
    lines, trailers = await raw_get(rest, f"/v1/orders:export?user_id={user['id']}", authorization=token)
    assert [len(json.loads(line)["orders"]) for line in lines] == [1]
    assert trailers["grpc-status"] == "0"
    assert trailers["x-request-id"]
    # Only this shows that an error ended a stream after its first message.
    lines, trailers = await raw_get(rest, "/v1/orders:watch?now=true", authorization=token, **{"grpc-timeout": "300m"})
    assert "checkpoint" in lines[0]
    assert trailers["grpc-status"] == "4"


async def raw_get(rest: Rest, path: str, **headers: str) -> tuple[list[str], dict[str, str]]:
    """Return the lines and the trailers of a response over HTTP/1.1: no client library has them."""
    trust = ssl.create_default_context(cadata=rest.ca.decode())
    reader, writer = await asyncio.open_connection("localhost", rest.ports["envoy"], ssl=trust)
    sent = {"host": "localhost", "connection": "close", "te": "trailers", **headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
    writer.write(f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode())
    async with asyncio.timeout(20):
        head, _, chunked = (await reader.read()).decode().partition("\r\n\r\n")
    writer.close()
    assert "transfer-encoding: chunked" in head
    body, _, trailers = chunked.rpartition("\r\n0\r\n")
    pieces = body.split("\r\n")
    # The length of a chunk, and the chunk.
    text = "".join(pieces[1::2])
    return text.splitlines(), dict(line.split(": ", 1) for line in trailers.strip().splitlines())


async def test_large_requests_are_refused(rest: Rest) -> None:
    user = await rest.new_user()
    body = json.dumps({"user": {"fullName": "x" * TOO_LARGE}})
    assert problem(await rest.http.post("/v1/users", content=body)) == (413, 3, "MALFORMED_REQUEST")

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 50_000):
            yield body[start : start + 50_000].encode()

    # Without a content-length.
    assert problem(await rest.http.post("/v1/users", content=pieces())) == (413, 3, "MALFORMED_REQUEST")
    assert (await rest.get(f"/v1/users/{user['id']}", headers={"x-padding": "x" * 70_000})).status_code == 431
    assert problem(await rest.get("/v1/tags", headers={"x_api_key": "a"}))[0] == 400


async def test_grpc_passes_as_it_is_to_these_services_only(rest: Rest) -> None:
    user = await rest.new_user()
    metadata = (("authorization", rest.http.headers["authorization"]),)
    credentials = grpc.ssl_channel_credentials(rest.ca)
    async with grpc.aio.secure_channel(f"localhost:{rest.ports['envoy']}", credentials) as channel:
        users = UserServiceStub(channel)
        read = await users.GetUser(users_pb.GetUserRequest(id=user["id"]), metadata=metadata)
        assert read.user.email == user["email"]

    # gRPC's asyncio client may report a status of its own for a stream that ends while it writes (grpc/grpc#36066).
    def streams() -> None:
        with grpc.secure_channel(f"localhost:{rest.ports['envoy']}", credentials) as channel:
            imported = iter([users_pb.ImportUsersRequest()])
            refused = UserServiceStub(channel).ImportUsers.future(imported, metadata=metadata)
            assert refused.code() == grpc.StatusCode.UNIMPLEMENTED
            # Its stub has no types.
            reflection: Any = reflection_pb2_grpc.ServerReflectionStub
            asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
            unknown = reflection(channel).ServerReflectionInfo(asked, metadata=metadata)
            assert unknown.code() == grpc.StatusCode.UNIMPLEMENTED

    await asyncio.to_thread(streams)


def test_the_configuration_names_what_has_to_be_changed() -> None:
    text = CONFIG.read_text()
    assert text.count("CHANGE: ") == 5
    assert text.count(NAME_IN_CERTIFICATE) == 2
    assert "admin:" not in text


async def test_envoy_logs_each_request_without_its_query(rest: Rest) -> None:
    request_id = f"test-{uuid4()}"
    for path in ("/v1/users:lookup", "/v1/unknown"):
        await rest.get(path, params={"email": "secret@example.com"}, headers={"x-request-id": request_id})

    def logged_paths() -> list[str]:
        lines = [json.loads(line) for line in rest.envoy.stdout().splitlines()]
        return [line["path"] for line in lines if line["request_id"] == request_id]

    await eventually(lambda: len(logged_paths()) == 2)
    assert logged_paths() == ["/commerce.users.v1.UserService/GetUser", "/v1/unknown"]
    assert "secret" not in rest.envoy.stdout() + rest.envoy.stderr()
