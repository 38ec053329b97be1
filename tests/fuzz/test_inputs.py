from random import Random

import pytest
from commerce.orders.v1.order_service_pb2 import CreateOrderRequest
from google.protobuf.message import Message

from tests.fuzz.inputs import Inputs
from tests.support.methods import ALL_METHODS


def fields_of(message: Message, path: str = "") -> set[str]:
    """Return the paths of all fields that are set, also in messages inside."""
    found = set()
    for field, value in message.ListFields():
        found.add(f"{path}{field.name}")
        if field.message_type and not field.message_type.GetOptions().map_entry:
            for inner in value if field.is_repeated else [value]:
                found |= fields_of(inner, f"{path}{field.name}.")
    return found


@pytest.mark.parametrize("method", sorted(ALL_METHODS))
def test_every_field_of_every_request_is_set_at_some_time(method: str) -> None:
    inputs = Inputs(Random(1), ["known"])
    kind = ALL_METHODS[method].input_type
    seen = set().union(*(fields_of(inputs.message(kind)) for _ in range(60)))
    assert {field.name for field in kind.fields} <= seen


def test_a_seed_makes_the_same_requests_again() -> None:
    def made() -> list[bytes]:
        inputs = Inputs(Random(2), ["known"])
        messages = [inputs.message(CreateOrderRequest.DESCRIPTOR) for _ in range(5)]
        messages += [inputs.changed(message) for message in messages]
        return [inputs.changed_bytes(message.SerializeToString(deterministic=True)) for message in messages]

    assert made() == made()
    assert len(set(made())) == len(made())
