"""What the clients know of an RPC: its path, its messages, and whether a second attempt is safe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from google.protobuf.message import Message

    Request = TypeVar("Request", bound=Message)
    Response = TypeVar("Response", bound=Message)
else:
    Request = TypeVar("Request")
    Response = TypeVar("Response")


@dataclass(frozen=True, slots=True, eq=False)
class Method(Generic[Request, Response]):
    """An RPC. The constants of `commerce.client.generated.methods` are all there are.

    Attributes:
        path: such as `/commerce.users.v1.UserService/GetUser`.
        request: the class of its request.
        response: the class of its response, or of each message of it.
        reads: whether it has no side effects.
        takes_request_id: whether the request has a `request_id`, with which it can be repeated safely.
        client_streaming: whether it takes many requests.
        server_streaming: whether it returns many responses.
    """

    path: str
    request: type[Request]
    response: type[Response]
    reads: bool = False
    takes_request_id: bool = False
    client_streaming: bool = False
    server_streaming: bool = False

    def copy(self, request: Request) -> Request:
        """Return a copy of a request for this method.

        Raises:
            TypeError: the method is a stream, or the request is that of another method.
        """
        if self.client_streaming or self.server_streaming:
            raise TypeError(f"{self.path} is a stream")
        if not isinstance(request, self.request):
            raise TypeError(f"{self.path} takes a {self.request.__name__}, not a {type(request).__name__}")
        copy = self.request()
        copy.CopyFrom(request)
        return copy
