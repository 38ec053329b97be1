"""Conversions of users from and to messages."""

from collections.abc import Callable, Iterable
from uuid import UUID

from commerce.common.v1.checkpoint_pb2 import Checkpoint
from commerce.users.v1.user_pb2 import FieldChange as FieldChangeMessage
from commerce.users.v1.user_pb2 import User as UserMessage
from commerce.users.v1.user_pb2 import UserEvent as UserEventMessage
from commerce.users.v1.user_pb2 import UserEventType
from commerce.users.v1.user_pb2 import UserState as UserStateMessage
from commerce.users.v1.user_service_pb2 import (
    ExportUsersRequest,
    ListUsersOrderBy,
    ListUsersRequest,
    WatchUsersRequest,
    WatchUsersResponse,
)
from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

from service.application.ports.queries import Row, UserFilter, UserOrder
from service.domain.events import etag_of
from service.domain.users import User, UserFields, UserState
from service.rpc.messages.values import Fields, parse_interval, timestamp

_STATES = {state: UserStateMessage.Value(f"USER_STATE_{state}") for state in UserState}
_STATES_BY_NUMBER = {number: state for state, number in _STATES.items()}
_EVENT_TYPES = {name.removeprefix("USER_EVENT_TYPE_"): number for name, number in UserEventType.items()}
_EVENT_TYPES_BY_NUMBER = {number: name for name, number in _EVENT_TYPES.items()}
_ORDER_BY = {
    ListUsersOrderBy.LIST_USERS_ORDER_BY_UNSPECIFIED: UserOrder.NEWEST,
    ListUsersOrderBy.LIST_USERS_ORDER_BY_NEWEST: UserOrder.NEWEST,
    ListUsersOrderBy.LIST_USERS_ORDER_BY_OLDEST: UserOrder.OLDEST,
    ListUsersOrderBy.LIST_USERS_ORDER_BY_USERNAME: UserOrder.USERNAME,
}
# The attributes of a row that form its position in a list of each sort order, and in the results of a search.
POSITION = {
    UserOrder.NEWEST: ("create_time", "id"),
    UserOrder.OLDEST: ("create_time", "id"),
    UserOrder.USERNAME: ("username",),
}
SEARCH_POSITION = ("rank", "id")
# More than any user takes in a response, with four bytes for each of the characters that the rules of its fields allow.
MAX_USER_BYTES = 20_000


def user_message(user: User | Row) -> UserMessage:
    """Return the message for a user, given as an entity or a row."""
    if isinstance(user, User) or user.message is None:
        return UserMessage(**_fields(user))
    return UserMessage.FromString(user.message)


def add_users(users: RepeatedCompositeFieldContainer[UserMessage], rows: Iterable[Row]) -> None:
    """Add the messages for rows to a repeated field.

    The messages are built inside the field: building them outside and copying them takes longer.
    """
    built: dict[UUID, UserMessage] = {}
    for row in rows:
        if row.message is not None:
            users.add().MergeFromString(row.message)
        elif repeated := built.get(row.id):
            users.add().CopyFrom(repeated)
        else:
            built[row.id] = users.add(**_fields(row))


def encode_user(user: User) -> bytes:
    """Return the encoded message of a user: the bytes of its User message."""
    return UserMessage(**_fields(user)).SerializeToString()


def _fields(user: User | Row) -> Fields:
    message = {
        "id": str(user.id),
        "email": user.email,
        "username": user.username,
        "full_name": user.full_name,
        "profile": {"bio": user.bio, "avatar_url": user.avatar_url},
        "state": _STATES[user.state],
        "etag": etag_of(user.version),
        "create_time": timestamp(user.create_time),
        "update_time": timestamp(user.update_time),
    }
    # Fields that most users do not have are not passed to the constructor: each one takes time, even if it is empty.
    if user.superuser:
        message["superuser"] = True
    if user.delete_time:
        message["delete_time"] = timestamp(user.delete_time)
        message["purge_time"] = timestamp(user.purge_time)
    return message


def user_search_result(row: Row) -> Fields:
    """Return the result for a row that a search found."""
    return {"user": user_message(row), "rank": row.rank}


def parse_user_fields(message: UserMessage, names: frozenset[str]) -> UserFields:
    """Return the values of these fields of a message."""
    fields = UserFields()
    if "email" in names:
        fields["email"] = message.email
    if "username" in names:
        fields["username"] = message.username
    if "full_name" in names:
        fields["full_name"] = message.full_name
    if "superuser" in names:
        fields["superuser"] = message.superuser
    if "profile.bio" in names:
        fields["bio"] = message.profile.bio
    if "profile.avatar_url" in names:
        fields["avatar_url"] = message.profile.avatar_url
    return fields


def parse_user_filter(request: ListUsersRequest | ExportUsersRequest) -> UserFilter:
    """Return the filter for the users that a request lists or exports; raises InvalidField."""
    start, end = parse_interval(request.create_time, "create_time")
    states: list[UserState] | None = [_STATES_BY_NUMBER[state] for state in request.states]
    if not states:
        states = None if request.show_deleted else [UserState.ACTIVE, UserState.INACTIVE]
    return UserFilter(
        states=states,
        created_from=start,
        created_before=end,
        superuser=request.superuser if request.HasField("superuser") else None,
    )


def parse_order_by(request: ListUsersRequest) -> UserOrder:
    """Return the order in which a request lists users."""
    return _ORDER_BY[request.order_by]


def user_event_message(event: Row) -> UserEventMessage:
    """Return the message for an event of a user."""
    return UserEventMessage(
        id=str(event.id),
        user_id=str(event.aggregate_id),
        # A newer release may have recorded a type that this one does not know.
        type=_EVENT_TYPES.get(event.type, UserEventType.USER_EVENT_TYPE_UNSPECIFIED),
        actor=event.actor,
        on_behalf_of=str(event.on_behalf_of) if event.on_behalf_of else "",
        create_time=timestamp(event.create_time),
        changes=[FieldChangeMessage(**change) for change in event.changes],
    )


def parse_user_watch(request: WatchUsersRequest) -> Callable[[Row], bool]:
    """Return the filter of a watch: a function that returns whether the client wants an event."""
    user_ids = {UUID(user_id) for user_id in request.user_ids}
    types = {_EVENT_TYPES_BY_NUMBER[number] for number in request.types}

    def wanted(event: Row) -> bool:
        return (
            event.aggregate_type == User.aggregate_type
            and (not user_ids or event.aggregate_id in user_ids)
            and (not types or event.type in types)
        )

    return wanted


def watch_users_response(event: Row | None, cursor: str) -> WatchUsersResponse:
    """Return the response for an event, or a checkpoint for None."""
    if event is None:
        return WatchUsersResponse(checkpoint=Checkpoint(), cursor=cursor)
    return WatchUsersResponse(event=user_event_message(event), cursor=cursor)
