"""Echo: grpc.aio without a database, the floor under every server of this kind.

GetUser answers at once with the id that it was asked for and constants.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import commerce.users.v1.user_service_pb2 as pb
import grpc
from commerce.users.v1.user_pb2 import USER_STATE_ACTIVE, User
from commerce.users.v1.user_service_pb2_grpc import UserServiceServicer, add_UserServiceServicer_to_server

from benchmarks.peers.serving import Context, run


class Users(UserServiceServicer):
    """Answers GetUser by id."""

    async def GetUser(self, request: pb.GetUserRequest, context: Context) -> pb.GetUserResponse:
        user = User(id=request.id, email="ada@example.com", username="ada", full_name="Ada", state=USER_STATE_ACTIVE)
        return pb.GetUserResponse(user=user)


@asynccontextmanager
async def adding(server: grpc.aio.Server) -> AsyncIterator[None]:
    """Add the service."""
    add_UserServiceServicer_to_server(Users(), server)  # type: ignore[abstract] # one method is enough
    yield


if __name__ == "__main__":
    run(adding)
