"""Each reason of an error has a section in docs/errors/, whose example a real server gives.

`COMMERCE_TEST_REWRITE_ERRORS=1 make tests T=tests/errors` writes the examples, and the line with the facts, into the
pages. In an example, `…` stands for what differs from call to call.
"""

import json
import os
import re
from collections.abc import AsyncIterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import grpc
import pytest
from commerce.client.errors import ERRORS_BY_REASON
from commerce.common.v1.error_reason_pb2 import ErrorReason
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from service.http.failures import CallFailed, status_json
from tests.errors import of_callers, of_failures, of_requests, of_resources, of_streams
from tests.errors.of_callers import ISSUER, NO_KEYS, STOREFRONT
from tests.errors.world import EXAMPLES, World
from tests.support.paths import ROOT
from tests.support.policies import guarded_server
from tests.support.servers import OwnServer

REWRITE = os.environ.get("COMMERCE_TEST_REWRITE_ERRORS") == "1"
DOCS = ROOT / "docs"
PAGES = sorted((DOCS / "errors").glob("*.md"))
MODULES = (of_callers, of_failures, of_requests, of_resources, of_streams)
PREFIX = "ERROR_REASON_"
REASONS = [name.removeprefix(PREFIX) for name, _ in ErrorReason.items() if not name.endswith("_UNSPECIFIED")]
# The heading, the line with the facts, the text, and the example.
SECTION = re.compile(r"^## ([A-Z_]+)\n\n([^\n]+)\n\n(.*?)^```json\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SECTIONS = {
    found[1]: (page, found[2], found[3], found[4]) for page in PAGES for found in SECTION.finditer(page.read_text())
}
# Of these, the time after which to retry is random, or what is left of a pause.
OTHER_DELAYS = {"OVERLOADED", "SIGN_IN_LIMIT"}
# What differs from call to call: ids, cursors, and how long a pause still takes.
DIFFERS = (
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"), "…"),
    (re.compile(r'(cursor": ")[^"]+'), r"\1…"),
    (re.compile(r"wait \d+ seconds?"), "wait … seconds"),
)


@pytest.fixture(scope="module")
async def world(
    own: OwnServer, postgres_url: str, template_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    folder = tmp_path_factory.mktemp("guarded")
    issuers = folder / "issuers.toml"
    issuers.write_text(ISSUER.table(NO_KEYS))
    allowed = {f"key:{STOREFRONT}": ["orders.read"]}
    async with guarded_server(postgres_url, template_url, folder, allowed, jwt_issuers_file=issuers) as guarded:
        yield World(own, guarded)


async def status_of_example(reason: str, world: World) -> Status:
    """Return the status with which the example of a reason fails."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await EXAMPLES[reason](world)
    status = rpc_status.from_call(raised.value)  # type: ignore[arg-type] # takes the error of an aio call too
    assert isinstance(status, Status)
    return status


def as_documented(reason: str, status: Status) -> str:
    """Return a status as the pages show it: JSON with a line for each field of each detail."""
    fields: dict[str, Any] = status_json(status)
    details = ",\n".join(map(_detail, fields["details"]))
    message = json.dumps(fields["message"])
    text = f'{{\n  "code": {fields["code"]},\n  "message": {message},\n  "details": [\n{details}\n  ]\n}}\n'
    for pattern, shown in DIFFERS:
        text = pattern.sub(shown, text)
    return re.sub(r'("retryDelay": ")[^"]+', r"\1…s", text) if reason in OTHER_DELAYS else text


def _detail(detail: dict[str, Any]) -> str:
    lines = ",\n".join(f"      {json.dumps(name)}: {_value(value)}" for name, value in detail.items())
    return f"    {{\n{lines}\n    }}"


def _value(value: Any) -> str:
    if isinstance(value, list):
        return "[\n" + ",\n".join(f"        {json.dumps(item, ensure_ascii=False)}" for item in value) + "\n      ]"
    # Only metadata has keys in any order.
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def facts(reason: str, status: Status) -> str:
    """Return the line with the facts of a reason: its code, its status over HTTP, and its class in the clients."""
    code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
    http = HTTPStatus(CallFailed(status).http_status)
    name = ERRORS_BY_REASON[reason].__name__
    return f"{code.name}; over HTTP {http.value} ({http.phrase}); `{name}` in the Python and TypeScript clients."


def test_every_reason_has_a_section_and_an_example() -> None:
    assert sorted(SECTIONS) == sorted(REASONS)
    assert sorted(EXAMPLES) == sorted(REASONS)
    for reason, (_, _, text, _) in SECTIONS.items():
        assert re.fullmatch(r"\*\*Cause\.\*\* .+\n\n\*\*What to do\.\*\* .+\n\n", text, re.DOTALL), reason


def test_every_reason_is_in_the_page_about_errors() -> None:
    index = (DOCS / "errors.md").read_text()
    linked = dict(re.findall(r"\[`([A-Z_]+)`\]\((errors/[a-z]+\.md)#[a-z_]+\)", index))
    assert linked == {reason: page.relative_to(DOCS).as_posix() for reason, (page, *_) in SECTIONS.items()}


def test_each_page_has_the_examples_of_one_module() -> None:
    for module in MODULES:
        assert module.__doc__
        (page,) = re.findall(r"docs/errors/\w+\.md", module.__doc__)
        there = {reason for reason, (found, *_) in SECTIONS.items() if found == ROOT / page}
        assert there == {reason for reason, function in EXAMPLES.items() if function.__module__ == module.__name__}


@pytest.mark.parametrize("reason", REASONS)
async def test_a_server_gives_the_example(reason: str, world: World) -> None:
    status = await status_of_example(reason, world)
    page, documented_facts, _, example = SECTIONS[reason]
    if REWRITE:
        write(page, reason, facts(reason, status), as_documented(reason, status))
        return
    assert as_documented(reason, status) == example
    assert documented_facts == facts(reason, status)


def write(page: Path, reason: str, its_facts: str, example: str) -> None:
    """Write what a server has given into the section of a reason."""

    def section(found: re.Match[str]) -> str:
        return f"## {reason}\n\n{its_facts}\n\n{found[3]}```json\n{example}```" if found[1] == reason else found[0]

    page.write_text(SECTION.sub(section, page.read_text()))
