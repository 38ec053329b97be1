"""Example requests, which the rules of their messages allow."""

from typing import Any

from clients.openapi.descriptors import Protos

_USER = "01935f6e-1c2a-7b3d-8e4f-5a6b7c8d9e0f"
_OTHER_USER = "01935f6e-1c2a-7b3d-8e4f-5a6b7c8d9e10"
_ORDER = "01935f70-2d3b-7c4e-9f50-6b7c8d9e0f1a"
_NOTE = "01935f71-3e4c-7d5f-a061-7c8d9e0f1a2b"
_PRICE = {"currencyCode": "EUR", "units": "12", "nanos": 500000000}
_ITEM = {"productId": "rocket-7", "name": "Rocket", "quantity": 2, "unitPrice": _PRICE}
# By the full names of the fields, or by their names alone.
_VALUES: dict[str, Any] = {
    "commerce.users.v1.CreateUserRequest.user": {
        "email": "ada@example.com",
        "username": "ada",
        "fullName": "Ada Lovelace",
    },
    "commerce.users.v1.UpdateUserRequest.user": {"id": _USER, "fullName": "Ada King"},
    "commerce.users.v1.TransferCreditRequest.to_user_id": _OTHER_USER,
    "commerce.orders.v1.CreateOrderRequest.order": {"userId": _USER, "items": [_ITEM]},
    "commerce.orders.v1.UpdateOrderRequest.order": {"id": _ORDER, "metadata": {"channel": "web"}},
    "commerce.orders.v1.CreateOrderNoteRequest.note": {
        "orderId": _ORDER,
        "authorId": _USER,
        "body": "Please wrap it.",
    },
    "commerce.orders.v1.UpdateOrderNoteRequest.note": {"id": _NOTE, "body": "Please wrap it in blue."},
    "amount": _PRICE,
    "author_id": _USER,
    "email": "ada@example.com",
    "from_user_id": _USER,
    "login": "ada",
    "now": True,
    "order_id": _ORDER,
    "password": "correct horse battery",
    "query": "ada",
    "reason": "ordered twice",
    "request_id": "01935f72-4f5d-7e60-b172-8d9e0f1a2b3c",
    "tags": ["gift"],
    "to_user_id": _OTHER_USER,
    "tracking_number": "JD014600003828",
    "update_mask": "fullName",
    "user_id": _USER,
    "username": "ada",
}


# Fields that no rule requires, but the method.
_SHOWN = frozenset({"commerce.orders.v1.ListOrderNotesRequest.order_id"})


def example(protos: Protos, request: Any) -> dict[str, Any]:  # noqa: ANN401 - a descriptor of one of two implementations
    """Return an example of a request message, with its required fields."""
    found: dict[str, Any] = {}
    for field in request.fields:
        options = protos.options(field)
        required = "REQUIRED" in options.get("[google.api.field_behavior]", [])
        shown = field.name == "request_id" or field.full_name in _SHOWN or _is_first_key(protos, field)
        if required or shown:
            found[field.json_name] = _value(request, field)
    return found


def _is_first_key(protos: Protos, field: Any) -> bool:  # noqa: ANN401 - see above
    oneof = field.containing_oneof
    if oneof is None or not protos.options(oneof).get("[buf.validate.oneof]", {}).get("required"):
        return False
    return bool(field.name == oneof.fields[0].name)


def _value(request: Any, field: Any) -> Any:  # noqa: ANN401 - see above
    for name in (field.full_name, field.name):
        if name in _VALUES:
            return _VALUES[name]
    if field.name in {"id", "ids"}:
        found = _NOTE if "Note" in request.name else _USER if ".users." in request.full_name else _ORDER
        return [found] if field.is_repeated else found
    message = f"clients/openapi/examples.py has no example of {field.full_name}"
    raise KeyError(message)
