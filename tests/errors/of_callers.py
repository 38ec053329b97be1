"""Calls of callers that are not known or not allowed: the examples of docs/errors/callers.md."""

import commerce.orders.v1.order_service_pb2 as orders_pb
import commerce.users.v1.user_service_pb2 as users_pb
import grpc

from tests.errors.world import World, example
from tests.support.clients import connect, new_user
from tests.support.failures import failure_of
from tests.support.identities import TokenIssuer
from tests.support.passwords import PASSWORD

# Its keys are at a URL at which nothing listens.
ISSUER = TokenIssuer()
NO_KEYS = "http://127.0.0.1:1/jwks.json"
STOREFRONT = "storefront"
MAX_ATTEMPTS = 20
WRONG = "wrong password"


@example("UNAUTHENTICATED_CALLER")
async def a_call_without_a_credential(world: World) -> None:
    async with connect(world.guarded.server.port) as clients:
        await clients.orders.ListOrders(orders_pb.ListOrdersRequest())


@example("PERMISSION_MISSING")
async def a_call_that_the_policy_does_not_allow(world: World) -> None:
    clients = await world.guarded.clients_of(STOREFRONT)
    await clients.users.CreateUser(users_pb.CreateUserRequest(user=new_user(), password=PASSWORD))


@example("ISSUER_UNAVAILABLE")
async def a_token_whose_issuer_cannot_be_reached(world: World) -> None:
    async with connect(world.guarded.server.port) as clients:
        await clients.orders.ListOrders(orders_pb.ListOrdersRequest(), metadata=(ISSUER.bearer(),))


@example("INVALID_CREDENTIALS")
async def a_wrong_password(world: World) -> None:
    user = await world.own.clients.create_user()
    request = users_pb.VerifyPasswordRequest(username=user.username, password=WRONG)
    await world.own.clients.users.VerifyPassword(request)


@example("SIGN_IN_LIMIT")
async def many_wrong_passwords(world: World) -> None:
    user = await world.own.clients.create_user()
    request = users_pb.VerifyPasswordRequest(username=user.username, password=WRONG)
    for _ in range(MAX_ATTEMPTS):
        try:
            await world.own.clients.users.VerifyPassword(request)
        except grpc.aio.AioRpcError as error:
            # Before the limit, and again if a pause ended between two attempts.
            if failure_of(error).reason != "INVALID_CREDENTIALS":
                raise
