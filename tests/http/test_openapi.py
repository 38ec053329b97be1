"""The OpenAPI description fits the protos, the rules of requests, and what the service answers."""

import copy
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict
from google.protobuf.message_factory import GetMessageClass
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from clients.openapi.generate import OUTPUT, generate
from service.http.methods import methods_of
from service.http.reference import reference_page
from service.rpc.messages.validation import violations_of
from tests.http.conftest import Site
from tests.support.http_calls import USERS
from tests.support.methods import ALL_METHODS

DOCUMENT: dict[str, Any] = json.loads(OUTPUT.read_text())
SERVICES = ("commerce.users.v1.UserService", "commerce.orders.v1.OrderService")
OPERATIONS = {path.rpartition("/")[2]: operations for path, operations in DOCUMENT["paths"].items()}


def test_generating_again_changes_nothing(tmp_path: Path) -> None:
    generate(tmp_path / "openapi.json")
    assert (tmp_path / "openapi.json").read_bytes() == OUTPUT.read_bytes()


def test_it_is_valid() -> None:
    validate(DOCUMENT)


def test_it_describes_what_is_served() -> None:
    methods = methods_of(SERVICES)
    assert DOCUMENT["paths"].keys() == methods.keys()
    assert {path for path, operations in DOCUMENT["paths"].items() if "get" in operations} == {
        path for path, method in methods.items() if method.reads
    }


@pytest.mark.parametrize("method", OPERATIONS)
def test_every_example_is_a_valid_request(method: str) -> None:
    body = OPERATIONS[method]["post"]["requestBody"]["content"]["application/json"]
    request = ParseDict(body["example"], GetMessageClass(ALL_METHODS[method].input_type)())
    assert violations_of(request) == []
    schema = {**body["schema"], "components": DOCUMENT["components"]}
    assert list(Draft202012Validator(schema).iter_errors(body["example"])) == []


def test_rules_of_fields_are_in_the_schemas() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    ids = schemas["commerce.users.v1.BatchGetUsersRequest"]["properties"]["ids"]
    assert (ids["minItems"], ids["maxItems"], ids["items"]["format"]) == (1, 1000, "uuid")
    assert schemas["commerce.users.v1.BatchGetUsersRequest"]["required"] == ["ids"]
    assert schemas["commerce.users.v1.User"]["properties"]["createTime"]["readOnly"] is True
    assert schemas["commerce.users.v1.CreateUserRequest"]["properties"]["password"]["writeOnly"] is True
    assert schemas["commerce.orders.v1.Order"]["properties"]["metadata"]["maxProperties"] == 64
    keys = [{"required": ["id"]}, {"required": ["email"]}, {"required": ["username"]}]
    assert schemas["commerce.users.v1.GetUserRequest"]["oneOf"] == keys
    total = schemas["commerce.users.v1.ListUsersResponse"]["properties"]["totalSize"]
    assert (total["type"], total["format"]) == (["string", "integer"], "int64")


def test_no_pattern_needs_classes_of_unicode() -> None:
    patterns = re.findall(r'"pattern": ("(?:[^"\\]|\\.)*")', OUTPUT.read_text())
    assert patterns
    for pattern in patterns:
        # Python knows no such classes, and would refuse them.
        re.compile(json.loads(pattern))


def test_errors_are_those_that_the_comments_name() -> None:
    post = OPERATIONS["CreateOrder"]["post"]["responses"]
    assert "USER_NOT_FOUND" in post["404"]["description"]
    assert "ORDER_ALREADY_EXISTS" in post["409"]["description"]
    assert "REQUEST_ID_REUSED" in post["400"]["description"]
    read = OPERATIONS["GetOrder"]["post"]["responses"]
    assert "REQUEST_ID_REUSED" not in read["400"]["description"]
    assert OPERATIONS["GetOrder"]["post"]["x-permission"] == "orders.read"


async def test_responses_fit_their_schemas(site: Site) -> None:
    user = await site.grpc.create_user()
    await site.grpc.create_order(user.id)
    for method, request in (("GetUser", {"id": user.id}), ("ListOrders", {"userId": user.id})):
        path = next(path for path in DOCUMENT["paths"] if path.endswith(f"/{method}"))
        response = await site.http.post(path, json=request)
        schema = OPERATIONS[method]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
        validator = Draft202012Validator({**schema, "components": DOCUMENT["components"]})
        assert list(validator.iter_errors(response.json())) == []
    failed = await site.http.post(f"{USERS}/GetUser", json={"username": "nobody"})
    schema = {"$ref": "#/components/schemas/google.rpc.Status", "components": DOCUMENT["components"]}
    assert list(Draft202012Validator(schema).iter_errors(failed.json())) == []


async def test_it_is_served(site: Site) -> None:
    response = await site.http.get("/openapi.json")
    assert (response.headers["content-type"], response.json()) == ("application/json", DOCUMENT)


class _Page(HTMLParser):
    """What a page refers to, and the elements that it names."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: set[str] = set()
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        named = {name: value or "" for name, value in attributes}
        assert "src" not in named
        if "id" in named:
            self.ids.append(named["id"])
        if "href" in named:
            self.links.add(named["href"])


async def test_it_can_be_read_without_network_and_scripts(site: Site) -> None:
    response = await site.http.get("/docs")
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert len(response.content) < 300_000
    page = _Page()
    page.feed(response.text)
    assert not page.tags & {"script", "img", "link", "iframe"}
    assert len(page.ids) == len(set(page.ids))
    inside = {link.removeprefix("#") for link in page.links if link.startswith("#")}
    assert inside <= set(page.ids)
    assert {path.strip("/").replace("/", ".") for path in DOCUMENT["paths"]} <= inside
    # For assistive technology: a language, one heading of the first level, and headers of tables.
    assert response.text.startswith('<!doctype html><html lang="en">')
    assert response.text.count("<h1>") == 1
    assert "<main>" in response.text


def test_the_page_escapes_what_comments_contain() -> None:
    document = copy.deepcopy(DOCUMENT)
    next(iter(document["paths"].values()))["post"]["description"] = "a <resource>"
    page = reference_page(document)
    assert "&lt;resource&gt;" in page
    assert "<resource>" not in page
