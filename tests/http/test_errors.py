"""Failures are a status with decoded details in the form of each protocol, also if no method is reached."""

import base64
import json
from typing import Any

import commerce.users.v1.user_service_pb2 as users_pb
import httpx
import pytest
from google.rpc.error_details_pb2 import ErrorInfo, ResourceInfo
from google.rpc.status_pb2 import Status

from tests.http.conftest import Site
from tests.support.http_calls import (
    CONNECT,
    CONNECT_END,
    JSON,
    ORDERS,
    UNARY,
    USERS,
    error_info,
    frame,
    frames,
    grpc_web_trailers,
)

GET_USER = f"{USERS}/GetUser"
NOBODY = users_pb.GetUserRequest(username="nobody")


async def post(site: Site, path: str, body: bytes, **headers: str) -> httpx.Response:
    return await site.http.post(
        path, content=body, headers={name.replace("_", "-"): value for name, value in {**JSON, **headers}.items()}
    )


async def test_plain_json_has_a_status_with_decoded_details(site: Site) -> None:
    response = await post(site, GET_USER, b'{"username": "nobody"}')
    assert response.status_code == 404
    assert response.json() == {
        "code": 5,
        "message": "user nobody not found",
        "details": [
            {
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": "USER_NOT_FOUND",
                "domain": "commerce",
            },
            {
                "@type": "type.googleapis.com/google.rpc.ResourceInfo",
                "resourceType": "commerce.users.v1.User",
                "resourceName": "nobody",
                "description": "user nobody not found",
            },
        ],
    }


@pytest.mark.parametrize("protocol", ["connect-json", "connect-proto"])
async def test_connect_has_its_own_form_with_the_bytes_and_the_content_of_each_detail(
    site: Site, protocol: str
) -> None:
    sent = UNARY[protocol]
    response = await site.http.post(GET_USER, content=sent.body(NOBODY), headers=dict(sent.headers))
    assert (response.status_code, response.json()["code"]) == (404, "not_found")
    info, resource = response.json()["details"]
    assert info["debug"] == {"reason": "USER_NOT_FOUND", "domain": "commerce"}
    value = base64.b64decode(info["value"] + "==")
    assert ErrorInfo.FromString(value) == ErrorInfo(reason="USER_NOT_FOUND", domain="commerce")
    assert resource["type"] == ResourceInfo.DESCRIPTOR.full_name


async def test_grpc_web_has_the_status_in_its_trailers(site: Site) -> None:
    sent = UNARY["grpc-web"]
    response = await site.http.post(GET_USER, content=sent.body(NOBODY), headers=dict(sent.headers))
    assert response.status_code == 200
    trailers = grpc_web_trailers(response.content)
    assert trailers["grpc-status"] == "5"
    status = Status.FromString(base64.b64decode(trailers["grpc-status-details-bin"] + "=="))
    info = ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.reason == "USER_NOT_FOUND"


@pytest.mark.parametrize("headers", [{}, CONNECT], ids=["json", "connect"])
@pytest.mark.parametrize("body", [b"{", b"", b"[]", b"\xff", b'{"username": nobody}', b"[" * 100_000])
async def test_malformed_json_has_an_error_info(site: Site, body: bytes, headers: dict[str, str]) -> None:
    response = await post(site, GET_USER, body, **headers)
    assert response.status_code == 400
    assert error_info(response.json())["reason"] == "MALFORMED_REQUEST"


async def test_malformed_bytes_have_the_same_error_info(site: Site) -> None:
    response = await post(site, GET_USER, b"\x0a\xff", content_type="application/proto")
    assert error_info(response.json())["reason"] == "MALFORMED_REQUEST"


@pytest.mark.parametrize(
    ("request_json", "field", "problem"),
    [
        ({"usernam": "ada"}, "usernam", "there is no field of this name; is it username?"),
        ({"order": {"items": [{}, {"qantity": 2}]}}, "order.items[1].qantity", "is it quantity?"),
        ({"order": {"items": [{"quantity": "two"}]}}, "order.items[0].quantity", "whole number"),
        ({"order": {"items": {}}}, "order.items", "must be a list"),
        ({"order": []}, "order", "must be an object"),
        ({"order": {"metadata": {"a": 1}}}, "order.metadata", "must be a string"),
        ({"order": {"userId": {}}}, "order.user_id", "must be a string"),
        ({"order": {"items": [{"unitPrice": {"units": 1.5}}]}}, "order.items[0].unit_price.units", "whole number"),
        ({"order": {"status": "LOST"}}, "order.status", "ORDER_STATUS_PENDING"),
        ({"order": {"createTime": "yesterday"}}, "order.create_time", "RFC 3339"),
        ({"validateOnly": "yes"}, "validate_only", "true or false"),
        ({"order": {"userId": "a", "user_id": "b"}}, "order.user_id", "set twice"),
    ],
)
async def test_a_wrong_field_is_named_by_its_path(
    site: Site, request_json: dict[str, Any], field: str, problem: str
) -> None:
    path = GET_USER if "usernam" in request_json else f"{ORDERS}/CreateOrder"
    response = await site.http.post(path, json=request_json)
    info, bad_request = response.json()["details"]
    assert (response.status_code, info["reason"]) == (400, "INVALID_FIELD")
    [violation] = bad_request["fieldViolations"]
    assert violation["field"] == field
    assert problem in violation["description"]
    assert response.json()["message"] == f"{field}: {violation['description']}"


async def test_two_fields_of_a_oneof_are_refused(site: Site) -> None:
    response = await site.http.post(GET_USER, json={"username": "ada", "email": "ada@example.com"})
    assert response.json()["message"] == "the request: only one of id, email, username can be set"


async def test_rules_are_checked_by_the_service(site: Site) -> None:
    response = await site.http.post(GET_USER, json={"id": "7"})
    assert response.json()["details"][1]["fieldViolations"][0]["field"] == "id"


async def test_names_of_fields_can_be_those_of_the_protos(site: Site) -> None:
    user = await site.grpc.create_user()
    response = await site.http.post(f"{USERS}/GetCreditBalance", json={"user_id": user.id})
    assert response.status_code == 200


async def test_a_stream_that_fails_before_its_first_response_fails_as_other_methods_do(site: Site) -> None:
    response = await site.http.post(f"{USERS}/WatchUsers", json={"cursor": "forged"})
    assert (response.status_code, response.json()["details"][0]["reason"]) == (400, "INVALID_CURSOR")
    connect = await site.http.post(
        f"{USERS}/WatchUsers",
        content=frame(b'{"cursor": "forged"}'),
        headers={"content-type": "application/connect+json", **CONNECT},
    )
    [(flags, last)] = frames(connect.content)
    assert (connect.status_code, flags) == (200, CONNECT_END)
    assert error_info(json.loads(last)["error"])["reason"] == "INVALID_CURSOR"


@pytest.mark.parametrize(
    ("path", "content_type", "status"),
    [
        ("/commerce.users.v1.UserService/Nothing", "application/json", 404),
        (f"{USERS}/ImportUsers", "application/json", 404),
        ("/", "application/json", 404),
        (GET_USER, "text/plain", 415),
        (GET_USER, "application/grpc", 415),
        (GET_USER, "application/grpc-web-text", 415),
        (GET_USER, "application/connect+json", 415),
        (f"{USERS}/ExportUsers", "application/proto", 415),
    ],
)
async def test_what_is_no_call_has_an_error_info_too(site: Site, path: str, content_type: str, status: int) -> None:
    response = await post(site, path, b"{}", content_type=content_type)
    assert response.status_code == status
    assert error_info(response.json())["reason"] == "MALFORMED_REQUEST"


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        (f"{USERS}/ExportUsers", b"\x09\x00\x00\x00\x00", {"content-type": "application/connect+json"}),
        (f"{USERS}/ExportUsers", b"\x00\x00\x00", {"content-type": "application/connect+json"}),
        (GET_USER, b"{}", {"content-encoding": "gzip", **CONNECT}),
        (GET_USER, b"{}", {"content-encoding": "gzip"}),
        (GET_USER, b"{}", {"connect-timeout-ms": "soon"}),
        (GET_USER, b"{}", {"grpc-timeout": "5"}),
        (GET_USER, b"{}", {"authorization": "d\xe9j\xe0"}),
    ],
)
async def test_a_wrong_frame_or_header_has_an_error_info_too(
    site: Site, path: str, body: bytes, headers: dict[str, str]
) -> None:
    encoded = {name.encode(): value.encode("latin-1") for name, value in {**JSON, **headers}.items()}
    response = await site.http.post(path, content=body, headers=encoded)
    error = response.json() if response.status_code != 200 else json.loads(frames(response.content)[-1][1])["error"]
    assert error_info(error)["reason"] == "MALFORMED_REQUEST"


@pytest.mark.parametrize("headers", [{}, CONNECT], ids=["json", "connect"])
@pytest.mark.parametrize("name", ["authorization", "x-api-key", "x-on-behalf-of"])
async def test_a_header_that_is_sent_twice_is_refused(site: Site, name: str, headers: dict[str, str]) -> None:
    """A proxy could have checked one of them, and the service would read the other."""
    twice = [*JSON.items(), *headers.items(), (name, "first"), (name, "second")]
    response = await site.http.post(GET_USER, content=b"{}", headers=twice)
    assert (response.status_code, response.json()["message"]) == (400, f"the header {name} is sent twice")


async def test_no_response_may_be_stored(site: Site) -> None:
    for body in (b'{"username": "nobody"}', b"{"):
        assert (await post(site, GET_USER, body)).headers["cache-control"] == "no-store"
        assert (await post(site, GET_USER, body, **CONNECT)).headers["cache-control"] == "no-store"
    assert (await site.http.get(f"{USERS}/ListUsers")).headers["cache-control"] == "no-store"


async def test_an_unknown_parameter_of_a_get_is_refused(site: Site) -> None:
    response = await site.http.get(GET_USER, params={"username": "ada"})
    assert response.status_code == 400
    assert "in the parameter message" in response.json()["message"]


@pytest.mark.parametrize("headers", [{}, CONNECT], ids=["json", "connect"])
async def test_every_response_has_the_x_request_id_of_the_call(site: Site, headers: dict[str, str]) -> None:
    user = await site.grpc.create_user()
    for body in ({"id": user.id}, {"username": "nobody"}, {"nothing": 1}):
        chosen = await site.http.post(GET_USER, json=body, headers={**headers, "x-request-id": "from-the-test"})
        assert chosen.headers["x-request-id"] == "from-the-test"
        made = await site.http.post(GET_USER, json=body, headers={**headers, "x-request-id": "not valid"})
        assert len(made.headers["x-request-id"]) == 36
    stream = await site.http.post(f"{ORDERS}/ExportOrders", json={"userId": user.id}, headers={"x-request-id": "s"})
    assert stream.headers["x-request-id"] == "s"


async def test_a_refusal_says_when_to_retry(site: Site) -> None:
    user = await site.grpc.create_user()
    wrong = {"username": user.username, "password": "wrong password"}
    for _ in range(7):
        response = await site.http.post(f"{USERS}/VerifyPassword", json=wrong)
    assert (response.status_code, response.json()["details"][0]["reason"]) == (429, "SIGN_IN_LIMIT")
    assert 1 <= int(response.headers["retry-after"]) <= 5
