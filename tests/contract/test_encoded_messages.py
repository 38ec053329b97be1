"""The message version of encoded messages."""

import pytest
from commerce.orders.v1.order_pb2 import Order, OrderCredit, OrderItem
from commerce.users.v1.user_pb2 import User, UserProfile
from google.protobuf.message import Message

from service.db.writes.encoded_messages import MESSAGE_VERSION

FIELDS: dict[type[Message], str] = {
    User: "id email username full_name profile state superuser etag create_time update_time delete_time purge_time",
    UserProfile: "bio avatar_url",
    Order: "id order_number user_id status items total_amount external_ref metadata tags tracking_number cancel_reason"
    " etag create_time update_time credit",
    OrderItem: "id product_id name quantity unit_price subtotal",
    OrderCredit: "state expire_time",
}


@pytest.mark.parametrize("message", FIELDS, ids=lambda message: message.DESCRIPTOR.name)
def test_another_field_needs_another_message_version(message: type[Message]) -> None:
    """Before a new field gets a line here, follow docs/adr/0019-encoded-messages-in-rows.md."""
    names = " ".join(field.name for field in message.DESCRIPTOR.fields)
    assert (MESSAGE_VERSION, names) == ("1", FIELDS[message])
