"""`client.users` of a `Client`."""

from commerce.client.generated.sync_users import UserMethods


class Users(UserMethods):
    """The methods of `commerce.users.v1.UserService`; those of its base class are generated from the protos."""
