"""The methods of the clients are those of the protos, and the same in both clients."""

import inspect
from typing import Any, get_overloads

import pytest
from commerce.client import AsyncClient, Client
from commerce.client.aio.orders import AsyncOrders
from commerce.client.aio.users import AsyncUsers
from commerce.client.batches import MAX_IDS
from commerce.client.generated import enums, methods
from commerce.client.options import ReadOptions
from commerce.client.sync.orders import Orders
from commerce.client.sync.users import Users
from google.api.field_behavior_pb2 import IDENTIFIER, IMMUTABLE, OUTPUT_ONLY, REQUIRED, field_behavior
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, MethodDescriptor

from tests.support.methods import ALL_METHODS, METHODS, READS
from tests.support.protos import rules_of

SERVICES: dict[str, tuple[type[Any], type[Any]]] = {
    "UserService": (Users, AsyncUsers),
    "OrderService": (Orders, AsyncOrders),
}
# The names of some methods, as a person would look for them.
NAMES = {
    "CreateUser": "create",
    "BatchGetUsers": "batch_get",
    "SetPassword": "set_password",
    "GetCreditBalance": "get_credit_balance",
    "AddOrderTags": "add_tags",
    "ListTags": "list_tags",
    "SearchOrderNotes": "search_notes",
    "TransferOrders": "transfer",
    "GetOrderStatistics": "get_statistics",
}


def method_names(rpc: MethodDescriptor) -> str:
    """Return the name of the clients' method for an RPC: its words without the resource of the service."""
    resource = rpc.containing_service.name.removesuffix("Service")
    words = "".join(f"_{letter}" if letter.isupper() else letter for letter in rpc.name).strip("_").split("_")
    return "_".join(word.lower() for word in words if word not in {resource, f"{resource}s"})


def of_both(rpc: MethodDescriptor) -> tuple[Any, Any]:
    """Return the methods of both clients for an RPC."""
    sync, asynchronous = SERVICES[rpc.containing_service.name]
    return getattr(sync, method_names(rpc)), getattr(asynchronous, method_names(rpc))


def signatures(method: Any) -> list[str]:
    """Return the signatures of a method, of each of its overloads too, without what differs between the clients."""
    found = [str(inspect.signature(one)) for one in (method, *get_overloads(method))]
    return [text.replace("AsyncPages", "Pages") for text in found]


def behaviors(field: FieldDescriptor) -> set[int]:
    return set(field.GetOptions().Extensions[field_behavior])  # type: ignore[index] # stub of an older protobuf


def arguments_of(rpc: MethodDescriptor) -> set[str]:
    """Return the names of the arguments that the method for an RPC must have: of all that callers can set."""
    changes = {"Create": {OUTPUT_ONLY, IDENTIFIER}, "Update": {OUTPUT_ONLY, IDENTIFIER, IMMUTABLE}}
    kind = rpc.name[:6]
    names = {field.name for field in rpc.input_type.fields}
    if kind in changes:
        resource = rpc.input_type.fields[0].message_type
        assert resource is not None
        settable = {field.name for field in resource.fields if not behaviors(field) & changes[kind]}
        names |= settable - ({"etag"} if kind == "Create" else set())
    return names


@pytest.mark.parametrize("rpc", METHODS.values(), ids=METHODS)
def test_both_clients_have_a_method_for_each_unary_rpc(rpc: MethodDescriptor) -> None:
    sync, asynchronous = of_both(rpc)
    assert signatures(sync) == signatures(asynchronous)
    assert sync.__doc__ == asynchronous.__doc__
    parameters = inspect.signature(sync).parameters
    assert set(parameters) - {"self", "options"} == arguments_of(rpc)
    # A list is read by iterating over it, in both.
    assert inspect.iscoroutinefunction(asynchronous) == ("page_token" not in parameters)
    assert not inspect.iscoroutinefunction(sync)
    # An argument with the name of an option would hide it.
    assert not set(parameters) & set(ReadOptions.__optional_keys__)
    kind = "ReadOptions" if rpc.name in READS else "CallOptions"
    assert parameters["options"].annotation == f"Unpack[{kind}]"


@pytest.mark.parametrize("rpc", METHODS.values(), ids=METHODS)
def test_what_is_required_has_no_default(rpc: MethodDescriptor) -> None:
    fields = [field for field in rpc.input_type.fields if REQUIRED in behaviors(field) and field.message_type is None]
    parameters = inspect.signature((get_overloads(of_both(rpc)[0]) or of_both(rpc))[0]).parameters
    assert [field.name for field in fields if parameters[field.name].default is not inspect.Parameter.empty] == []


def test_names_are_those_that_people_look_for() -> None:
    assert {name: method_names(ALL_METHODS[name]) for name in NAMES} == NAMES


def test_the_constants_are_all_rpcs() -> None:
    assert {method.path for method in methods.ALL} == {
        f"/{rpc.containing_service.full_name}/{rpc.name}" for rpc in ALL_METHODS.values()
    }
    for method in methods.ALL:
        rpc = ALL_METHODS[method.path.rpartition("/")[2]]
        assert (method.client_streaming, method.server_streaming) == (rpc.client_streaming, rpc.server_streaming)
        assert (rpc.input_type, rpc.output_type) == (method.request.DESCRIPTOR, method.response.DESCRIPTOR)
        assert method.takes_request_id == ("request_id" in rpc.input_type.fields_by_name)
        if rpc.name in METHODS:
            assert method.reads == (rpc.name in READS)


def test_batches_have_the_size_that_the_server_allows() -> None:
    batches = [rpc for name, rpc in METHODS.items() if name.startswith("BatchGet")]
    assert batches
    assert {rules_of(rpc.input_type.fields_by_name["ids"]).repeated.max_items for rpc in batches} == {MAX_IDS}


def test_the_clients_themselves_have_the_same_methods() -> None:
    def public(kind: type[Any]) -> dict[str, str]:
        named = {name: member for name, member in vars(kind).items() if not name.startswith("_")}
        return {name: str(inspect.signature(getattr(member, "func", member))) for name, member in named.items()}

    sync, asynchronous = public(Client), public(AsyncClient)
    assert {name: text.replace("Async", "") for name, text in asynchronous.items()} == sync
    constructors = [str(inspect.signature(kind.__init__)) for kind in (Client, AsyncClient)]
    assert constructors[1].replace("AsyncTokenSource", "TokenSource") == constructors[0]


def all_enums(message: Descriptor, seen: dict[str, EnumDescriptor]) -> None:
    """Collect the enums of the services that a message has."""
    for field in message.fields:
        if field.enum_type is not None and field.enum_type.full_name.startswith("commerce."):
            seen[field.enum_type.name] = field.enum_type
        if field.message_type is not None and field.message_type != message:
            all_enums(field.message_type, seen)


def test_the_enums_have_the_values_of_the_protos() -> None:
    found: dict[str, EnumDescriptor] = {}
    for rpc in ALL_METHODS.values():
        all_enums(rpc.input_type, found)
        all_enums(rpc.output_type, found)
    del found["ErrorReason"]
    assert len(found) > 8
    for name, enum in found.items():
        prefix = enum.values[0].name.removesuffix("UNSPECIFIED")
        expected = {value.name.removeprefix(prefix): value.number for value in enum.values}
        assert {member.name: int(member) for member in getattr(enums, name)} == expected


def test_a_value_that_a_newer_server_has_becomes_a_member() -> None:
    status = enums.OrderStatus(77)
    assert (status, status.name, repr(status)) == (77, "UNKNOWN_77", "<OrderStatus.UNKNOWN_77: 77>")
    with pytest.raises(ValueError, match="not a valid OrderStatus"):
        enums.OrderStatus("PENDING")  # type: ignore[arg-type] # what is tested
