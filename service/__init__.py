"""The user and order backend: `commerce.users.v1.UserService` and `commerce.orders.v1.OrderService`."""

import os

# gRPC reads these when it is first imported.
# Its C core writes lines of its own to standard error, in no format of ours; what matters comes as an exception too.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
# Its fork handlers start threads in every child. Ours only execute other programs, and are to be left alone until then.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
# pydantic otherwise looks for plugins in the metadata of every installed package, which takes as long as one of its
# larger models.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
