"""`commercectl users`."""

from __future__ import annotations

from commerce.client.cli.commands import Command, group
from commerce.client.cli.watching import watch_command
from commerce.client.generated import methods

_COLUMNS = ("username", "email", "full_name", "state", "create_time", "id")
_FOUND = ("user.username", "user.email", "user.full_name", "user.state", "user.id")
_EVENTS = ("create_time", "type", "user_id", "changes", "actor")

COMMANDS = (
    Command("get", "users.get", methods.GET_USER, "USER"),
    Command("list", "users.list", methods.LIST_USERS, columns=_COLUMNS),
    Command("search", "users.search", methods.SEARCH_USERS, arguments=("query",), columns=_FOUND),
    Command("create", "users.create", methods.CREATE_USER),
    Command("update", "users.update", methods.UPDATE_USER, "USER"),
    Command("deactivate", "users.deactivate", methods.DEACTIVATE_USER, "USER"),
    Command("reactivate", "users.reactivate", methods.REACTIVATE_USER, "USER"),
    Command("delete", "users.delete", methods.DELETE_USER, "USER"),
    Command("undelete", "users.undelete", methods.UNDELETE_USER, "USER"),
    Command(
        "purge", "users.purge", methods.PURGE_USER, "USER", question="This erases the user {resource} and its data."
    ),
    Command(
        "set-password",
        "users.set_password",
        methods.SET_PASSWORD,
        "USER",
        question="This replaces the password of {resource}.",
    ),
)

USERS = group("users", "Create, find and change users.", COMMANDS, watch_command("users", methods.WATCH_USERS, _EVENTS))
