"""`client.users` of an `AsyncClient`."""

from commerce.client.generated.aio_users import AsyncUserMethods


class AsyncUsers(AsyncUserMethods):
    """The methods of `commerce.users.v1.UserService`; those of its base class are generated from the protos."""
