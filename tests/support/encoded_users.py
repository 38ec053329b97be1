"""Users as columns, and as encoded messages, in one form to compare."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import asyncpg
from commerce.users.v1.user_pb2 import User, UserState
from google.protobuf.timestamp_pb2 import Timestamp

Users = Mapping[str, tuple[Any, ...]]
_COLUMNS = (
    *("id", "email", "username", "full_name", "superuser", "state", "version"),
    *("create_time", "update_time", "delete_time", "purge_time"),
)


async def stored_users(connection: asyncpg.Connection) -> Users:
    """Return the columns of each user and its profile."""
    rows = await connection.fetch(
        f"SELECT {', '.join(_COLUMNS)}, coalesce(bio, ''), coalesce(avatar_url, '')"
        " FROM users LEFT JOIN user_profiles ON user_id = id"
    )
    return {str(user_id): (str(user_id), *rest) for user_id, *rest in rows}


async def encoded_users(connection: asyncpg.Connection) -> Users:
    """Return each user as its encoded message has it; skips users without one."""
    rows = await connection.fetch("SELECT id, message FROM users WHERE message IS NOT NULL")
    return {str(row["id"]): _columns(User.FromString(row["message"])) for row in rows}


def _columns(user: User) -> tuple[Any, ...]:
    return (
        user.id,
        user.email,
        user.username,
        user.full_name,
        user.superuser,
        UserState.Name(user.state).removeprefix("USER_STATE_"),
        int(user.etag.removeprefix("v")),
        _time(user.create_time),
        _time(user.update_time),
        _time(user.delete_time) if user.HasField("delete_time") else None,
        _time(user.purge_time) if user.HasField("purge_time") else None,
        user.profile.bio,
        user.profile.avatar_url,
    )


def _time(time: Timestamp) -> datetime:
    return time.ToDatetime(tzinfo=UTC)
