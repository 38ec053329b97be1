"""`client.orders` of a `Client`."""

from commerce.client.generated.sync_orders import OrderMethods


class Orders(OrderMethods):
    """The methods of `commerce.orders.v1.OrderService`; those of its base class are generated from the protos."""
