"""Echo: grpc.aio without a database, the lower bound for the cost of every grpc.aio server.

GetUser immediately answers with the requested id and constants.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import commerce.users.v1.user_service_pb2 as pb
import grpc
from commerce.users.v1.user_pb2 import USER_STATE_ACTIVE, User
from commerce.users.v1.user_service_pb2_grpc import UserServiceServicer, add_UserServiceServicer_to_server

from benchmarks.peers.serving import Context, run


class Users(UserServiceServicer):
    """GetUser by id."""

    async def GetUser(self, request: pb.GetUserRequest, context: Context) -> pb.GetUserResponse:
        user = User(id=request.id, email="ada@example.com", username="ada", full_name="Ada", state=USER_STATE_ACTIVE)
        return pb.GetUserResponse(user=user)


@asynccontextmanager
async def adding(server: grpc.aio.Server) -> AsyncIterator[None]:
    """Register the service."""
    add_UserServiceServicer_to_server(Users(), server)  # type: ignore[abstract] # implements one method only
    yield


if __name__ == "__main__":
    run(adding)
