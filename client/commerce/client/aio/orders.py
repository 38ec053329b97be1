"""`client.orders` of an `AsyncClient`."""

from commerce.client.generated.aio_orders import AsyncOrderMethods


class AsyncOrders(AsyncOrderMethods):
    """The methods of `commerce.orders.v1.OrderService`; those of its base class are generated from the protos."""
