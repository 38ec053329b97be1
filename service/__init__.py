"""The user and order backend: `commerce.users.v1.UserService` and `commerce.orders.v1.OrderService`."""

import os

# gRPC's C core writes lines of its own to standard error, in no format of ours; what matters comes as an exception too.
# It reads this when it is first imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
