import commerce.orders.v1.order_service_pb2 as pb

from tests.support import Clients


async def test_a_user_places_an_order(clients: Clients) -> None:
    user = await clients.create_user()
    order = await clients.create_order(user.id)
    assert (await clients.orders.GetOrder(pb.GetOrderRequest(id=order.id))).order == order
