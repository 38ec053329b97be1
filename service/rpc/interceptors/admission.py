"""Lets calls run, wait for their turn, or refuses them, before they take a connection of the database."""

import time
from functools import partial

from google.protobuf.message import Message

from service.rpc.admission.admission import Admission
from service.rpc.admission.gate import STUCK_SECONDS, Gate
from service.rpc.call_context import current_call
from service.rpc.interceptors.base import Interceptor
from service.rpc.methods import Call, Context, Method, Request


class AdmissionInterceptor(Interceptor):
    """Lets as many calls run as the server can serve quickly; callers that wait take turns (`service.rpc.admission`).

    Args:
        admission: has the limits.
    """

    def __init__(self, admission: Admission) -> None:
        self._admission = admission

    def wrap(self, method: Method, call: Call) -> Call:
        """Return the method with admission; a method without limits is returned unchanged."""
        gate = self._admission.add(method)
        if gate is None:
            return call
        limit, clock = gate.limit, time.perf_counter

        async def admit(request: Request, context: Context) -> Message | bytes | None:
            call_context = current_call()
            caller = call_context.caller.name
            began = clock()
            ticket = gate.enter(caller, began)
            if not ticket:
                ticket = await gate.wait(caller, context.time_remaining())
                began = clock()
            running = gate.running
            try:
                response = await call(request, context)
                # A call that fails says nothing about the load: many failures take no time, others just as long as the
                # caller allows.
                ended = clock()
                limit.add(ended - began, running, ended)
                return response
            finally:
                if call_context.working:
                    # The client has gone, often because its deadline has passed. Others must not start until the write
                    # has ended. It took at least so long; unless it was stuck, it was slow because of the load.
                    call_context.after_work = partial(_end_late, gate, caller, ticket, began, running)
                else:
                    gate.leave(caller, ticket)

        return admit


def _end_late(gate: Gate, caller: str, ticket: int, began: float, running: int) -> None:
    ended = time.perf_counter()
    if ended - began < STUCK_SECONDS:
        gate.limit.add(ended - began, running, ended)
    gate.leave(caller, ticket)
