import re

import pytest
from commerce.orders.v1.order_pb2 import Order
from commerce.users.v1.user_service_pb2 import CreateUserRequest, GetUserRequest
from google.protobuf.message import Message

from service.domain.errors import FieldViolation
from service.rpc.messages.validation import PATTERN_DESCRIPTIONS, violations_of
from tests.support.clients import new_user
from tests.support.passwords import PASSWORD
from tests.support.paths import ROOT

PROTOS = ROOT / "protos/commerce"


@pytest.mark.parametrize(
    ("message", "violation"),
    [
        (
            GetUserRequest(username="No Name"),
            FieldViolation("username", "must be 3 to 50 of the characters A-Z a-z 0-9 _ . -", "STRING_PATTERN"),
        ),
        (
            Order(metadata={"a": "two\nlines"}),
            FieldViolation("metadata[a]", "must not contain line breaks or other control characters", "STRING_PATTERN"),
        ),
        (
            CreateUserRequest(user=new_user(email="nobody"), password=PASSWORD),
            FieldViolation("user.email", "must be a valid email address", "STRING_EMAIL"),
        ),
    ],
    ids=["a pattern", "a pattern in a map", "another rule"],
)
def test_a_violation_names_its_field_and_the_rule(message: Message, violation: FieldViolation) -> None:
    assert violation in violations_of(message)


def test_every_pattern_of_the_protos_is_described_in_words() -> None:
    written = {
        pattern.replace("\\\\", "\\")
        for path in PROTOS.rglob("*.proto")
        for pattern in re.findall(r'pattern = "(.*)"', path.read_text("utf-8"))
    }
    assert written == set(PATTERN_DESCRIPTIONS)
