"""Limits calls to what belongs to one user: those of callers that have a permission only for that (`:own`).

Three checks make the limit, none of which any method knows of:

- A filter by user that the request leaves empty is set to the user.
- Before the method runs, everything that the request refers to is looked up. If something belongs to another user or
  does not exist, the call is denied, with one answer for both. So no other error can tell that something exists.
- Before the response is sent, and before the unit of work is committed, every message in it must belong to the user.
  This holds if an order is transferred while the call runs.

A method whose requests cannot be limited has no option `own`; the AuthorizationInterceptor denies it.
"""

from collections.abc import Coroutine
from typing import Any, cast
from uuid import UUID

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from service.application.ports.errors import AlreadyAnswered
from service.application.ports.queries import OwnerQueries
from service.domain.errors import PermissionMissing, RequestIdReused
from service.rpc.call_context import current_call, current_unit_of_work
from service.rpc.identity.denials import denied
from service.rpc.identity.own import OwnRequests, References, owners_in
from service.rpc.identity.permissions import authorization_of, can_be_limited
from service.rpc.interceptors.base import Interceptor
from service.rpc.interceptors.checked_context import Check, CheckedContext
from service.rpc.methods import Call, Context, Method, Request


class OwnershipInterceptor(Interceptor):
    """Limits the calls whose context has `limited_to`.

    It runs inside the unit of work, which is rolled back if a response is refused; but looks things up before the
    transaction begins, so it holds no lock.

    Args:
        owners: whose things are; None if no policy limits any call.
    """

    def __init__(self, owners: OwnerQueries | None) -> None:
        self._owners = owners

    def wrap(self, method: Method, call: Call) -> Call:
        """Return the method with its limit, if it can be limited."""
        # A call that is refused for load has a stream in place of its request. No method of ours that streams requests
        # can be limited.
        if self._owners is None or method.descriptor is None or not method.is_ours or method.request_streaming:
            return call
        if not can_be_limited(method.descriptor):
            return call
        limit = _Limit(method.descriptor, self._owners)

        # Not a coroutine function: that would be one coroutine more for every call.
        def limit_to_owner(request: Request, context: Context) -> Coroutine[Any, Any, Message | bytes | None]:
            user = current_call().limited_to
            return call(request, context) if user is None else limit.run(call, request, context, user)

        return limit_to_owner


class _Limit:
    """The limit of one method."""

    def __init__(self, method: MethodDescriptor, owners: OwnerQueries) -> None:
        self._owners = owners
        self._permission = authorization_of(method).permission
        self._requests = OwnRequests(method)
        self._owners_in = owners_in(method.output_type)
        self._response_class = GetMessageClass(method.output_type)

    async def run(self, call: Call, request: Request, context: Context, user: UUID) -> Message | bytes | None:
        """Run a call that is limited to what belongs to a user."""
        self._requests.narrow(request, str(user))
        references = self._requests.references(request)

        async def check(response: Message | bytes) -> None:
            await self._require_own(response, references, user)

        if not await self._are_own(references, user):
            await _begin_if_repeated(request, check)
            raise self._denied(user)
        try:
            response = await call(request, cast("Context", CheckedContext(context, check)))
        except AlreadyAnswered as answer:
            await check(answer.response)
            raise
        if response is not None:
            await check(response)
        return response

    async def _are_own(self, references: References, user: UUID) -> bool:
        """Return whether a request refers to something, and all of that exists and belongs to the user."""
        if not references or any(named != str(user) for named in references.users):
            return False
        owners = self._owners
        # Most requests have at most one of these.
        for names, owners_of in (
            (references.orders, owners.of_orders),
            (references.order_numbers, owners.of_order_numbers),
            (references.notes, owners.of_notes),
            (references.emails, owners.of_emails),
            (references.usernames, owners.of_usernames),
        ):
            if different := [*set(names)]:
                found = await owners_of(different)
                if len(found) < len(different) or any(one != user for one in found):
                    return False
        return True

    async def _require_own(self, response: Message | bytes, references: References, user: UUID) -> None:
        """Require that all messages in a response belong to the user; raises PermissionMissing."""
        if self._owners_in is None:
            return
        message = self._response_class.FromString(response) if isinstance(response, bytes) else response
        belongs_to_order = False
        for user_id, order_id in self._owners_in(message):
            if user_id == str(user):
                continue
            if not order_id or order_id not in references.orders:
                raise self._denied(user)
            belongs_to_order = True
        # An event tells who owned the order at that time; the order may have been transferred since it was looked up.
        if belongs_to_order and not await self._are_own(references, user):
            raise self._denied(user)

    def _denied(self, user: UUID) -> PermissionMissing:
        why = f"it is granted only for what belongs to user {user}, and the request names something else, or nothing"
        return denied(self._permission, current_call().caller.name, why)


async def _begin_if_repeated(request: Request, check: Check) -> None:
    """Begin the transaction of a denied call that may be a repetition; raises AlreadyAnswered if it is one.

    What the first call referred to may not exist any more, such as a note that it deleted. The stored response is that
    of the same caller and user. Without one, the claim of the request id is rolled back with the denial.
    """
    if not getattr(request, "request_id", "") or getattr(request, "validate_only", False):
        return
    try:
        await current_unit_of_work().begin()
    except AlreadyAnswered as answer:
        await check(answer.response)
        raise
    except RequestIdReused:
        # The denial says no more, so that it is the same whether or not something exists.
        return
