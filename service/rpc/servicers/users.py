"""The servicer of UserService."""

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from datetime import datetime
from uuid import UUID

import commerce.users.v1.user_service_pb2 as pb
from commerce.users.v1.user_pb2 import User as UserMessage
from commerce.users.v1.user_service_pb2_grpc import UserServiceServicer

from service.application.credit import grant_credit, transfer_credit
from service.application.ports.passwords import Passwords
from service.application.ports.queries import MAX_RANKED, CreditQueries, Row, UserOrder, UserQueries
from service.application.ports.sign_in_attempts import SignInAttempts
from service.application.ports.unit_of_work import UnitOfWork
from service.application.users import change_user, create_user, purge_user, set_password, verify_password
from service.domain.errors import UserNotFound
from service.domain.search import SearchQuery
from service.domain.sign_in import SignIn
from service.domain.text import folded
from service.domain.users import User
from service.rpc.call_context import current_caller
from service.rpc.messages.credit import POSITION as CREDIT_POSITION
from service.rpc.messages.credit import credit_balance_message, credit_entry_message
from service.rpc.messages.update_masks import fields_to_update, settable_fields
from service.rpc.messages.users import (
    MAX_USER_BYTES,
    POSITION,
    SEARCH_POSITION,
    add_users,
    parse_order_by,
    parse_user_fields,
    parse_user_filter,
    parse_user_watch,
    user_message,
    user_search_result,
)
from service.rpc.messages.values import MAX_ESTIMATE, batch_in_order, parse_positive_money, require_id, rows_in_a_turn
from service.rpc.methods import Context
from service.rpc.signing.device_tokens import DeviceTokens
from service.rpc.signing.page_tokens import PageTokens
from service.rpc.streams.exports import Exports
from service.rpc.streams.imports import UserImports
from service.rpc.streams.watch import Watch
from service.runtime.loop_turns import in_turns

# How many users of a batch are built in one turn of the event loop.
_BUILT_TOGETHER = 100
# Requests of transitions; all have an id and an etag.
_TransitionRequest = pb.DeactivateUserRequest | pb.ReactivateUserRequest | pb.DeleteUserRequest | pb.UndeleteUserRequest


class UserServicer(UserServiceServicer):
    """Implements `commerce.users.v1.UserService`; the proto documents the methods and their errors.

    Args:
        unit_of_work: returns the unit of work of the current call.
        queries: the read side of users.
        credit_queries: the read side of their credit.
        passwords: hashes and checks passwords.
        page_tokens: writes and reads page tokens.
        watch: answers watches.
        clock: returns the time, in UTC.
        sign_in_attempts: limits attempts to sign in.
        device_tokens: writes and reads the tokens of devices on which users have signed in.
        imports: runs ImportUsers.
        exports: runs ExportUsers.
        max_response_bytes: the maximum size of a response with a batch.
    """

    def __init__(  # noqa: PLR0913 - one parameter for each dependency
        self,
        unit_of_work: Callable[[], UnitOfWork],
        queries: UserQueries,
        credit_queries: CreditQueries,
        passwords: Passwords,
        page_tokens: PageTokens,
        watch: Watch[pb.WatchUsersResponse],
        clock: Callable[[], datetime],
        *,
        sign_in_attempts: SignInAttempts,
        device_tokens: DeviceTokens,
        imports: UserImports,
        exports: Exports,
        max_response_bytes: int,
    ) -> None:
        self._uow = unit_of_work
        self._queries = queries
        self._credit_queries = credit_queries
        self._passwords = passwords
        self._sign_in_attempts = sign_in_attempts
        self._device_tokens = device_tokens
        self._imports = imports
        self._exports = exports
        self._max_response_bytes = max_response_bytes
        self._page_tokens = page_tokens
        self._watch = watch
        self._now = clock

    async def CreateUser(self, request: pb.CreateUserRequest, context: Context) -> pb.CreateUserResponse:
        fields = parse_user_fields(request.user, settable_fields(request.user))
        credit = (
            parse_positive_money(request.welcome_credit, "welcome_credit")
            if request.HasField("welcome_credit")
            else None
        )
        user = await create_user(
            self._uow(), self._passwords, fields, request.password, self._now(), welcome_credit=credit
        )
        return pb.CreateUserResponse(user=user_message(user))

    async def GetUser(self, request: pb.GetUserRequest, context: Context) -> pb.GetUserResponse:
        name = ""
        match request.WhichOneof("key"):
            case "id":
                name = request.id
                user: Row | None = await self._queries.by_id(request.id)
            case "email":
                # The error names no user, because a status must not contain an e-mail address.
                user = await self._queries.by_email(request.email)
            case _:
                name = request.username
                user = await self._queries.by_username(request.username)
        if user is None:
            raise UserNotFound(name)
        return pb.GetUserResponse(user=user_message(user))

    async def BatchGetUsers(self, request: pb.BatchGetUsersRequest, context: Context) -> pb.BatchGetUsersResponse:
        ids = list(request.ids)
        # So few users always fit.
        limit = None if len(ids) * MAX_USER_BYTES <= self._max_response_bytes else self._max_response_bytes
        found = await self._queries.by_ids(list(dict.fromkeys(ids)), limit and MAX_ESTIMATE * limit)
        response = pb.BatchGetUsersResponse()
        async for rows in in_turns(batch_in_order(ids, found, UserNotFound, limit), _BUILT_TOGETHER):
            add_users(response.users, rows)
        return response

    async def ListUsers(self, request: pb.ListUsersRequest, context: Context) -> pb.ListUsersResponse:
        order_by = parse_order_by(request)
        found = await self._queries.page(parse_user_filter(request), order_by, self._page_tokens.page(request))
        response = pb.ListUsersResponse(
            next_page_token=self._page_tokens.next(request, found, POSITION[order_by]), total_size=found.total_size
        )
        async for rows in in_turns(found.rows, rows_in_a_turn(found.rows)):
            add_users(response.users, rows)
        return response

    async def SearchUsers(self, request: pb.SearchUsersRequest, context: Context) -> pb.SearchUsersResponse:
        query = SearchQuery.parse(request.query, "query")
        page = self._page_tokens.page(request)
        found = await self._queries.search(query, page, show_deleted=request.show_deleted)
        return pb.SearchUsersResponse(
            results=map(user_search_result, found.rows),
            next_page_token=self._page_tokens.next(request, found, SEARCH_POSITION),
            total_size=found.total_size if request.include_total_size else 0,
            truncated=found.total_size == MAX_RANKED,
        )

    async def UpdateUser(self, request: pb.UpdateUserRequest, context: Context) -> pb.UpdateUserResponse:
        user_id = require_id(request.user.id, "user.id")
        mask = request.update_mask if request.HasField("update_mask") else None
        fields = parse_user_fields(request.user, fields_to_update(request.user, mask))
        now = self._now()
        user = await change_user(self._uow(), user_id, request.user.etag, lambda user: user.update(fields, now))
        return pb.UpdateUserResponse(user=user_message(user))

    async def DeactivateUser(self, request: pb.DeactivateUserRequest, context: Context) -> pb.DeactivateUserResponse:
        return pb.DeactivateUserResponse(user=await self._transition(request, User.deactivate))

    async def ReactivateUser(self, request: pb.ReactivateUserRequest, context: Context) -> pb.ReactivateUserResponse:
        return pb.ReactivateUserResponse(user=await self._transition(request, User.reactivate))

    async def DeleteUser(self, request: pb.DeleteUserRequest, context: Context) -> pb.DeleteUserResponse:
        return pb.DeleteUserResponse(user=await self._transition(request, User.delete))

    async def UndeleteUser(self, request: pb.UndeleteUserRequest, context: Context) -> pb.UndeleteUserResponse:
        return pb.UndeleteUserResponse(user=await self._transition(request, User.undelete))

    async def PurgeUser(self, request: pb.PurgeUserRequest, context: Context) -> pb.PurgeUserResponse:
        count = await purge_user(self._uow(), UUID(request.id), request.etag, self._now(), force=request.force)
        return pb.PurgeUserResponse(purged_order_count=count)

    async def SetPassword(self, request: pb.SetPasswordRequest, context: Context) -> pb.SetPasswordResponse:
        user = await set_password(
            self._uow(), self._passwords, UUID(request.id), request.password, self._now(), etag=request.etag
        )
        return pb.SetPasswordResponse(user=user_message(user))

    async def VerifyPassword(self, request: pb.VerifyPasswordRequest, context: Context) -> pb.VerifyPasswordResponse:
        login_kind, now = "email" if request.HasField("email") else "username", self._now()
        login = folded(getattr(request, login_kind))
        device = self._device_tokens.read(request.device_token, login_kind, login, now)
        sign_in = SignIn(login_kind, login, current_caller().name, device)
        user = await verify_password(
            self._uow(), self._queries, self._passwords, self._sign_in_attempts, sign_in, request.password, now
        )
        token = self._device_tokens.write(device, login_kind, login, now)
        return pb.VerifyPasswordResponse(user=user_message(user), device_token=token)

    async def ImportUsers(
        self, request_iterator: AsyncIterator[pb.ImportUsersRequest], context: Context
    ) -> pb.ImportUsersResponse:
        return await self._imports.run(request_iterator, context)

    async def ExportUsers(  # type: ignore[override] # writes to the context, to detect a client that does not read
        self, request: pb.ExportUsersRequest, context: Context
    ) -> None:
        where = parse_user_filter(request)
        await self._exports.run(
            context,
            lambda snapshot, page: snapshot.users.page(where, UserOrder.OLDEST, page),
            keys=POSITION[UserOrder.OLDEST],
            message=user_message,
            response=lambda users: pb.ExportUsersResponse(users=users),
            page_rows=500,
        )

    async def GetCreditBalance(
        self, request: pb.GetCreditBalanceRequest, context: Context
    ) -> pb.GetCreditBalanceResponse:
        balances = await self._credit_queries.balances(UUID(request.user_id))
        if balances is None:
            raise UserNotFound(request.user_id)
        return pb.GetCreditBalanceResponse(balances=map(credit_balance_message, balances))

    async def GrantCredit(self, request: pb.GrantCreditRequest, context: Context) -> pb.GrantCreditResponse:
        amount = parse_positive_money(request.amount, "amount")
        transaction, account = await grant_credit(
            self._uow(), UUID(request.user_id), amount, request.description, self._now()
        )
        return pb.GrantCreditResponse(balance=credit_balance_message(account), transaction_id=str(transaction.id))

    async def TransferCredit(self, request: pb.TransferCreditRequest, context: Context) -> pb.TransferCreditResponse:
        transaction, source, target = await transfer_credit(
            self._uow(),
            UUID(request.from_user_id),
            UUID(request.to_user_id),
            parse_positive_money(request.amount, "amount", may_be_withdrawn=True),
            request.description,
            self._now(),
        )
        return pb.TransferCreditResponse(
            from_balance=credit_balance_message(source),
            to_balance=credit_balance_message(target),
            transaction_id=str(transaction.id),
        )

    async def ListCreditEntries(
        self, request: pb.ListCreditEntriesRequest, context: Context
    ) -> pb.ListCreditEntriesResponse:
        page = self._page_tokens.page(request)
        found = await self._credit_queries.entries(UUID(request.user_id), request.currency_code or None, page)
        if found is None:
            raise UserNotFound(request.user_id)
        return pb.ListCreditEntriesResponse(
            entries=map(credit_entry_message, found.rows),
            next_page_token=self._page_tokens.next(request, found, CREDIT_POSITION),
            total_size=found.total_size,
        )

    async def WatchUsers(self, request: pb.WatchUsersRequest, context: Context) -> AsyncIterator[pb.WatchUsersResponse]:
        async with aclosing(self._watch(request, parse_user_watch(request))) as responses:
            async for response in responses:
                yield response

    async def _transition(
        self, request: _TransitionRequest, transition: Callable[[User, datetime], None]
    ) -> UserMessage:
        now = self._now()
        user = await change_user(self._uow(), UUID(request.id), request.etag, lambda user: transition(user, now))
        return user_message(user)
