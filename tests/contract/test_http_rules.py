"""Every RPC has a path for REST, or a reason why not (`google.api.http`; AIP-127, AIP-131 to AIP-136)."""

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from google.api.annotations_pb2 import http
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions

from tests.support.methods import ALL_METHODS
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from google.api.http_pb2 import HttpRule

WITHOUT_PATH = {"ImportUsers": "a stream of requests is not one body"}
# AIP-133 lets the body be the resource, and all other fields parameters of the query. A password must not be there,
# because URLs are logged.
BODY_IS_THE_REQUEST = {"CreateUser": "has a password"}
STANDARD = ("BatchGet", "Get", "List", "Create", "Update", "Delete")
# What reads and does not return resources by their ids.
CUSTOM_READS = ("Search", "Export", "Watch")


@dataclass(frozen=True)
class Binding:
    """One way to call a method."""

    method: MethodDescriptor
    http_method: str
    path: str
    body: str

    @property
    def name(self) -> str:
        return f"{self.method.name} {self.http_method} {self.path}"

    @property
    def variables(self) -> list[str]:
        return re.findall(r"\{([^}]*)\}", self.path)

    @property
    def custom(self) -> str:
        """What follows the colon."""
        return re.sub(r"\{[^}]*\}", "", self.path).partition(":")[2]


def bindings_of(method: MethodDescriptor) -> list[Binding]:
    # The stubs of the extension do not name its types.
    options: Any = method.GetOptions()
    if not options.HasExtension(http):
        return []
    rule: HttpRule = options.Extensions[http]
    found = []
    for each in (rule, *rule.additional_bindings):
        pattern = each.WhichOneof("pattern")
        assert pattern in {"get", "post", "patch", "delete"}, f"{method.name}: {pattern}"
        assert not each.response_body
        found.append(Binding(method, pattern, getattr(each, pattern), each.body))
    return found


BINDINGS = {binding.name: binding for method in ALL_METHODS.values() for binding in bindings_of(method)}


def field_of(message: Descriptor, path: str) -> FieldDescriptor | None:
    """Return the field that a path such as `order.id` names."""
    first, _, rest = path.partition(".")
    field = message.fields_by_name.get(first)
    if field is None or not rest:
        return field
    return field_of(field.message_type, rest) if field.message_type else None


def test_every_method_has_a_path_or_a_reason() -> None:
    without = {name for name, method in ALL_METHODS.items() if not bindings_of(method)}
    assert without == set(WITHOUT_PATH)
    assert {name for name, method in ALL_METHODS.items() if method.client_streaming} == without
    assert len(BINDINGS) > 40


def test_the_page_lists_all_paths() -> None:
    rows = re.findall(r"^\| `([A-Z]+)` \| `(/v1/[^`]+)` \| (\w+) \|", (ROOT / "docs/rest.md").read_text(), re.MULTILINE)
    listed = [(binding.http_method.upper(), binding.path, binding.method.name) for binding in BINDINGS.values()]
    assert rows == listed


def test_no_two_methods_share_an_http_method_and_a_path() -> None:
    shapes = Counter((binding.http_method, re.sub(r"\{[^}]*\}", "*", binding.path)) for binding in BINDINGS.values())
    assert [shape for shape, count in shapes.items() if count > 1] == []


@pytest.mark.parametrize("binding", BINDINGS.values(), ids=BINDINGS)
def test_a_path_follows_the_conventions(binding: Binding) -> None:
    """Collections in the plural and lowerCamelCase, then ids; the version first."""
    segment = r"(?:[a-z][A-Za-z]*|\{[a-z_.]+\})"
    assert re.fullmatch(rf"/v1(?:/{segment})+(?::[a-z][A-Za-z]*)?", binding.path)
    for variable in binding.variables:
        field = field_of(binding.method.input_type, variable)
        assert field is not None, variable
        assert field.type == FieldDescriptor.TYPE_STRING
        assert not field.is_repeated
    assert len(set(binding.variables)) == len(binding.variables)


@pytest.mark.parametrize("binding", BINDINGS.values(), ids=BINDINGS)
def test_the_http_method_says_whether_a_method_writes(binding: Binding) -> None:
    reads = binding.method.GetOptions().idempotency_level == MethodOptions.NO_SIDE_EFFECTS
    assert (binding.http_method == "get") == reads
    match binding.http_method:
        case "patch":
            assert binding.method.name.startswith("Update")
        case "delete":
            assert binding.method.name.startswith("Delete")
    if binding.http_method in {"get", "delete"}:
        assert binding.body == ""


@pytest.mark.parametrize("binding", BINDINGS.values(), ids=BINDINGS)
def test_a_custom_method_is_named_in_its_path(binding: Binding) -> None:
    """`:confirm` of ConfirmOrder, `:addTags` of AddOrderTags (AIP-136); standard methods have none."""
    name = binding.method.name
    if not binding.custom:
        assert name.startswith(STANDARD)
        return
    if binding.custom == "lookup":
        # The other keys of a Get.
        assert name.startswith("Get")
        assert "key" in binding.method.input_type.oneofs_by_name
        return
    words = re.findall(r"[A-Z][a-z]*", name)
    said = re.findall(r"[A-Z][a-z]*", binding.custom[0].upper() + binding.custom[1:])
    assert said[0] == words[0]
    assert set(said) <= set(words)
    assert binding.http_method == ("get" if name.startswith((*CUSTOM_READS, "BatchGet")) else "post")


@pytest.mark.parametrize("binding", BINDINGS.values(), ids=BINDINGS)
def test_the_body_is_what_the_conventions_say(binding: Binding) -> None:
    """The resource of Create and Update (AIP-133, AIP-134), all other fields of a custom method (AIP-136)."""
    if binding.http_method in {"get", "delete"}:
        return
    name = binding.method.name
    if name.startswith(("Create", "Update")) and name not in BODY_IS_THE_REQUEST:
        resource = field_of(binding.method.input_type, binding.body)
        assert resource is not None
        assert resource.message_type
        assert resource.number == 1
        if name.startswith("Update"):
            assert binding.variables == [f"{binding.body}.id"]
    else:
        assert binding.body == "*"


@pytest.mark.parametrize("binding", BINDINGS.values(), ids=BINDINGS)
def test_no_secret_and_no_list_of_messages_is_in_a_url(binding: Binding) -> None:
    """A query can express neither, and URLs are logged."""
    if binding.body == "*":
        return
    for field in binding.method.input_type.fields:
        if field.name == binding.body:
            continue
        assert not field.GetOptions().debug_redact, field.name
        assert not (field.is_repeated and field.message_type), field.name
