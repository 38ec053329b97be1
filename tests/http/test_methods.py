"""Every method can be called in every protocol."""

import json

import commerce.orders.v1.order_service_pb2 as orders_pb
import commerce.users.v1.user_service_pb2 as users_pb
import pytest
from google.protobuf.json_format import ParseDict
from grpc_health.v1.health_pb2 import HealthCheckResponse

from service.http.methods import methods_of
from tests.http.conftest import Site
from tests.support.http_calls import STREAMS, UNARY, call_over_http, response_class_of, to_json
from tests.support.methods import ALL_METHODS, METHODS, MUTATIONS, READS, path_of
from tests.support.requests import GOOD_REQUESTS

SERVICES = ("commerce.users.v1.UserService", "commerce.orders.v1.OrderService")


@pytest.mark.parametrize("protocol", ["json", "grpc-web"])
@pytest.mark.parametrize("method", METHODS)
async def test_every_method_with_one_response_answers(site: Site, method: str, protocol: str) -> None:
    request = await GOOD_REQUESTS[method](site.grpc)
    # It fails unless there is a response of this method.
    await call_over_http(site.http, method, request, UNARY[protocol])


@pytest.mark.parametrize("protocol", UNARY)
async def test_the_response_is_that_of_grpc(site: Site, protocol: str) -> None:
    request = users_pb.GetUserRequest(id=(await site.grpc.create_user()).id)
    [response] = await call_over_http(site.http, "GetUser", request, UNARY[protocol])
    assert response == await site.grpc.users.GetUser(request)


@pytest.mark.parametrize("method", READS)
async def test_every_method_without_side_effects_answers_to_get(site: Site, method: str) -> None:
    request = await GOOD_REQUESTS[method](site.grpc)
    by_get = await site.http.get(path_of(method), params={"message": to_json(request).decode()})
    by_connect = await site.http.get(
        path_of(method), params={"message": to_json(request).decode(), "encoding": "json", "connect": "v1"}
    )
    by_post = await site.http.post(
        path_of(method), content=to_json(request), headers={"content-type": "application/json"}
    )
    assert by_get.status_code == by_connect.status_code == 200, by_get.text
    assert by_get.json().keys() == by_connect.json().keys() == by_post.json().keys()


@pytest.mark.parametrize("method", [*MUTATIONS, "VerifyPassword"])
async def test_no_method_with_side_effects_answers_to_get(site: Site, method: str) -> None:
    for parameters in ({}, {"connect": "v1", "encoding": "json"}):
        response = await site.http.get(path_of(method), params={"message": "{}", **parameters})
        assert response.status_code == 405
        assert response.headers["allow"] == "POST"
        assert response.json()["details"][0]["reason"] == "MALFORMED_REQUEST"


@pytest.mark.parametrize("protocol", STREAMS)
@pytest.mark.parametrize("method", ["ExportUsers", "ExportOrders"])
async def test_every_export_ends_with_an_end_marker(site: Site, method: str, protocol: str) -> None:
    user = await site.grpc.create_user()
    order = await site.grpc.create_order(user.id)
    of_user = orders_pb.ExportOrdersRequest(user_id=user.id)
    request = users_pb.ExportUsersRequest() if method == "ExportUsers" else of_user
    # `call_over_http` fails without the marker.
    responses = await call_over_http(site.http, method, request, STREAMS[protocol])
    if method == "ExportOrders":
        assert [exported.id for response in responses for exported in response.orders] == [order.id]
    else:
        assert user.id in {exported.id for response in responses for exported in response.users}


@pytest.mark.parametrize("method", ["WatchUsers", "WatchOrders"])
async def test_a_watch_delivers_its_responses_as_they_come(site: Site, method: str) -> None:
    async with site.http.stream("POST", path_of(method), json={"now": True}) as response:
        lines = response.aiter_lines()
        first = json.loads(await anext(lines))
        assert first["result"]["cursor"]
        user = await site.grpc.create_user()
        await site.grpc.create_order(user.id)
        # Other tests create users and orders at the same time.
        async for line in lines:
            result = ParseDict(json.loads(line)["result"], response_class_of(ALL_METHODS[method])())
            if result.event.user_id == user.id:
                break


async def test_a_stream_answers_to_get(site: Site) -> None:
    user = await site.grpc.create_user()
    response = await site.http.get(path_of("ExportOrders"), params={"message": json.dumps({"userId": user.id})})
    assert response.headers["content-type"] == "application/x-ndjson"
    assert response.text.splitlines()[-1] == '{"end":{}}'


async def test_an_absent_message_of_a_get_is_an_empty_request(site: Site) -> None:
    response = await site.http.get(path_of("ListUsers"))
    assert response.status_code == 200, response.text


async def test_health_answers(site: Site) -> None:
    response = await site.http.post("/grpc.health.v1.Health/Check", json={})
    assert ParseDict(response.json(), HealthCheckResponse()).status == HealthCheckResponse.SERVING
    unknown = await site.http.post("/grpc.health.v1.Health/Check", json={"service": "nobody"})
    assert (unknown.status_code, unknown.json()["code"]) == (404, 5)


def test_all_methods_are_served_but_those_whose_callers_stream() -> None:
    served = {method.name for method in methods_of(SERVICES).values()}
    assert served == {name for name, method in ALL_METHODS.items() if not method.client_streaming}
    assert ALL_METHODS.keys() - served == {"ImportUsers"}
