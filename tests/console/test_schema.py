"""What the console knows of the services is what the protos say."""

import json
from pathlib import Path
from typing import Any

import pytest

from clients.console.generate import OUTPUT, generate
from tests.console.conftest import Console
from tests.support.methods import ALL_METHODS

SCHEMA: dict[str, Any] = json.loads(OUTPUT.read_text())
METHODS = {method["name"]: method for service in SCHEMA["services"] for method in service["methods"]}

# For all methods: an example is shown in the form, read from it again unchanged, and breaks no rule.
_EXAMPLES = """async () => {
  const [{ loadSchema }, { fieldsControl }, { check }] = await Promise.all(
    ["lib/schema.js", "explore/form/message.js", "lib/check.js"].map((name) => import(new URL(name, location.href))));
  const schema = await loadSchema();
  const found = [];
  for (const method of schema.methods.values()) {
    const form = fieldsControl(schema, method.input);
    form.set(method.example ?? {});
    found.push([method.name, form.get(), method.example ? check(schema, method.input, method.example) : []]);
  }
  return found;
}"""


def test_generating_again_changes_nothing(tmp_path: Path) -> None:
    generate(tmp_path / "schema.json")
    assert (tmp_path / "schema.json").read_bytes() == OUTPUT.read_bytes()


def test_it_has_all_methods() -> None:
    health = {"Check", "List", "Watch"}
    assert METHODS.keys() - health == ALL_METHODS.keys()


@pytest.mark.parametrize("name", ["CreateUser", "ShipOrder"])
def test_a_method_has_its_comment_permission_and_errors(name: str) -> None:
    method = METHODS[name]
    assert method["doc"].endswith(".")
    assert "Errors:" not in method["doc"]
    assert method["permission"] in {"users.write", "orders.process"}
    assert ["INVALID_ARGUMENT", "INVALID_FIELD"] in method["errors"]


def test_every_reason_is_explained() -> None:
    reasons = {reason for method in METHODS.values() for _, reason in method["errors"]}
    assert reasons <= SCHEMA["reasons"].keys()
    assert all(reason["doc"] for reason in SCHEMA["reasons"].values())


def test_rules_of_fields_are_known() -> None:
    fields = {field["name"]: field for field in SCHEMA["messages"]["commerce.orders.v1.OrderItem"]["fields"]}
    assert fields["quantity"]["rules"] == {"gte": 1, "lte": 10000}
    assert fields["unit_price"]["rules"] == {"required": True}
    assert fields["subtotal"]["output"] is True
    user = {field["name"]: field for field in SCHEMA["messages"]["commerce.users.v1.CreateUserRequest"]["fields"]}
    assert user["password"]["secret"] is True


async def test_forms_show_and_return_every_example(console: Console) -> None:
    await console.open("/explore")
    found = await console.page.evaluate(_EXAMPLES)
    assert {name for name, _, _ in found} == METHODS.keys()
    for name, shown, violations in found:
        example = METHODS[name].get("example", {})
        assert {key: value for key, value in shown.items() if key in example or value != {}} == example or not example
        assert violations == []
