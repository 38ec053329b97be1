"""Whether the reads of a call may be answered by the replica: one context variable, set in `rpc` and heeded in `db`.

Whatever sets nothing reads from the primary: writes, streams, and all work that belongs to no call.
"""

from contextvars import ContextVar

prefers_replica: ContextVar[bool] = ContextVar("prefers_replica", default=False)
