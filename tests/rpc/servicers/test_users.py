from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import commerce.users.v1.user_service_pb2 as pb
import pytest
from commerce.users.v1.user_import_pb2 import UserImportConfig, UserImportRow
from commerce.users.v1.user_pb2 import User, UserState
from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc.error_details_pb2 import PreconditionFailure, ResourceInfo
from grpc import StatusCode

from service.db.tables import metadata
from tests.support.clients import Clients, connect, new_user
from tests.support.databases import driver_connection
from tests.support.failures import fails
from tests.support.methods import METHODS, call, call_bytes, request_class
from tests.support.passwords import PASSWORD
from tests.support.requests import GOOD_REQUESTS, user_in
from tests.support.servers import running_server, serving_clients

USER_METHODS = sorted(name for name, method in METHODS.items() if method.containing_service.name == "UserService")
OTHER_PASSWORD = "another password"  # noqa: S105 - of users that live as long as a test


async def get(clients: Clients, user_id: str) -> User:
    return (await clients.users.GetUser(pb.GetUserRequest(id=user_id))).user


async def update(clients: Clients, user: User, *paths: str) -> User:
    mask = FieldMask(paths=paths) if paths else None
    return (await clients.users.UpdateUser(pb.UpdateUserRequest(user=user, update_mask=mask))).user


async def sign_in(clients: Clients, password: str = PASSWORD, **login: str) -> User:
    return (await clients.users.VerifyPassword(pb.VerifyPasswordRequest(password=password, **login))).user


# CreateUser


async def test_a_new_user_is_active_and_has_the_requested_fields(clients: Clients) -> None:
    wanted = new_user(full_name="Zoë 🚀 名前", superuser=True)
    request = pb.CreateUserRequest(user=wanted, password=PASSWORD)
    user = (await clients.users.CreateUser(request)).user
    assert (user.email, user.username, user.full_name) == (wanted.email, wanted.username, "Zoë 🚀 名前")
    assert user.superuser
    assert user.state == UserState.USER_STATE_ACTIVE
    assert UUID(user.id).version == 7
    assert user.etag
    assert user.create_time == user.update_time
    assert abs(user.create_time.ToDatetime(tzinfo=UTC) - datetime.now(UTC)) < timedelta(minutes=1)
    assert not user.HasField("delete_time")
    assert not user.HasField("purge_time")


@pytest.mark.parametrize("state", ["ACTIVE", "INACTIVE", "DELETED"])
@pytest.mark.parametrize("field", ["email", "username"])
async def test_a_name_of_another_user_is_taken_in_any_state(clients: Clients, state: str, field: str) -> None:
    other = await user_in(clients, state)
    request = pb.CreateUserRequest(user=new_user(**{field: getattr(other, field)}), password=PASSWORD)
    with fails(StatusCode.ALREADY_EXISTS, "USER_ALREADY_EXISTS") as failure:
        await clients.users.CreateUser(request)
    assert failure.metadata == {"field": field}
    resource = failure.details[ResourceInfo]
    assert isinstance(resource, ResourceInfo)
    assert resource.resource_type == "commerce.users.v1.User"
    assert getattr(other, field) not in f"{failure.message} {failure.trailers}"


async def test_an_email_is_taken_in_any_case(clients: Clients) -> None:
    other = await clients.create_user()
    request = pb.CreateUserRequest(user=new_user(email=other.email.upper()), password=PASSWORD)
    with fails(StatusCode.ALREADY_EXISTS, "USER_ALREADY_EXISTS") as failure:
        await clients.users.CreateUser(request)
    assert failure.metadata == {"field": "email"}


# GetUser, BatchGetUsers


async def test_a_user_is_found_by_each_of_its_names(clients: Clients) -> None:
    name = f"Ada.{uuid4().hex}@Example.com"
    user = await clients.create_user(email=name)
    assert user.email == name
    requests = [
        pb.GetUserRequest(id=user.id),
        pb.GetUserRequest(id=user.id.upper()),
        pb.GetUserRequest(email=name),
        pb.GetUserRequest(email=name.lower()),
        pb.GetUserRequest(email=name.upper()),
        pb.GetUserRequest(username=user.username),
        pb.GetUserRequest(username=user.username.upper()),
    ]
    assert [(await clients.users.GetUser(request)).user for request in requests] == [user] * len(requests)


async def test_a_deleted_user_is_still_found(clients: Clients) -> None:
    user = await user_in(clients, "DELETED")
    assert await get(clients, user.id) == user


@pytest.mark.parametrize("key", ["id", "email", "username"])
async def test_a_missing_user_is_not_found_and_its_email_not_repeated(clients: Clients, key: str) -> None:
    name = {"id": str(uuid4()), "email": "nobody@example.com", "username": "nobody"}[key]
    with fails(StatusCode.NOT_FOUND, "USER_NOT_FOUND") as failure:
        await clients.users.GetUser(pb.GetUserRequest(**{key: name}))
    resource = failure.details[ResourceInfo]
    assert isinstance(resource, ResourceInfo)
    assert resource.resource_type == "commerce.users.v1.User"
    assert resource.resource_name == ("" if key == "email" else name)
    assert "nobody@example.com" not in f"{failure.message} {failure.trailers}"


async def test_a_batch_keeps_its_order_and_its_repetitions(clients: Clients) -> None:
    first, second, third = [await clients.create_user() for _ in range(3)]
    await clients.users.DeleteUser(pb.DeleteUserRequest(id=third.id))
    ids = [third.id, first.id, second.id, first.id.upper()]
    users = (await clients.users.BatchGetUsers(pb.BatchGetUsersRequest(ids=ids))).users
    assert [user.id for user in users] == [third.id, first.id, second.id, first.id]
    assert users[1] == first


async def test_a_batch_names_every_missing_user(clients: Clients) -> None:
    user = await clients.create_user()
    missing = [str(uuid4()) for _ in range(3)]
    with fails(StatusCode.NOT_FOUND, "USER_NOT_FOUND") as failure:
        ids = [missing[0], user.id, missing[1], missing[2]]
        await clients.users.BatchGetUsers(pb.BatchGetUsersRequest(ids=ids))
    assert failure.metadata == {
        "missing_count": "3",
        "missing_indexes": "0,2-3",
        "missing_ids": ",".join(missing),
    }


async def test_a_batch_names_500_missing_users_in_a_small_status(clients: Clients) -> None:
    user = await clients.create_user()
    ids = [user.id if index % 2 else str(uuid4()) for index in range(1000)]
    with fails(StatusCode.NOT_FOUND, "USER_NOT_FOUND") as failure:
        await clients.users.BatchGetUsers(pb.BatchGetUsersRequest(ids=ids))
    assert failure.metadata["missing_count"] == "500"
    assert failure.metadata["missing_indexes"] == ",".join(str(index) for index in range(0, 1000, 2))
    assert len(failure.trailers["grpc-status-details-bin"]) <= 4096


# UpdateUser


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (("full_name",), {"full_name": "Grace", "superuser": True}),
        (("full_name", "superuser"), {"full_name": "Grace", "superuser": False}),
        (("superuser",), {"full_name": "Ada", "superuser": False}),
        # Without a mask, a field with its default value counts as not set.
        ((), {"full_name": "Grace", "superuser": True}),
    ],
    ids=lambda value: "+".join(value) or "none",
)
async def test_an_update_sets_the_fields_of_its_mask(
    clients: Clients, paths: tuple[str, ...], expected: dict[str, Any]
) -> None:
    user = await clients.create_user(full_name="Ada", superuser=True)
    updated = await update(clients, User(id=user.id, full_name="Grace"), *paths)
    assert {name: getattr(updated, name) for name in expected} == expected
    assert (updated.email, updated.username, updated.state) == (user.email, user.username, user.state)
    assert updated.etag != user.etag
    assert updated.create_time == user.create_time
    assert updated.update_time.ToNanoseconds() > user.update_time.ToNanoseconds()
    assert await get(clients, user.id) == updated


async def test_a_star_replaces_every_field(clients: Clients) -> None:
    user = await clients.create_user(full_name="Ada", superuser=True)
    new = new_user(full_name="")
    new.id = user.id
    updated = await update(clients, new, "*")
    assert (updated.email, updated.username, updated.full_name) == (new.email, new.username, "")
    assert not updated.superuser


@pytest.mark.parametrize("field", ["email", "username"])
async def test_a_star_without_a_required_field_is_refused(clients: Clients, field: str) -> None:
    user = await clients.create_user()
    new = new_user()
    new.id = user.id
    new.ClearField(field)  # type: ignore[arg-type] # the stub wants a literal
    with fails(StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", field=f"user.{field}"):
        await update(clients, new, "*")
    assert await get(clients, user.id) == user


async def test_an_update_that_changes_nothing_leaves_the_etag(clients: Clients) -> None:
    user = await clients.create_user()
    assert await update(clients, user, "email", "username", "full_name", "superuser") == user


async def test_an_email_can_change_its_case(clients: Clients) -> None:
    user = await clients.create_user()
    updated = await update(clients, User(id=user.id, email=user.email.upper()))
    assert updated.email == user.email.upper()


@pytest.mark.parametrize("field", ["email", "username"])
async def test_an_update_to_a_name_of_another_user_is_refused(clients: Clients, field: str) -> None:
    user, other = await clients.create_user(), await clients.create_user()
    with fails(StatusCode.ALREADY_EXISTS, "USER_ALREADY_EXISTS") as failure:
        await update(clients, User(id=user.id, **{field: getattr(other, field)}))
    assert failure.metadata == {"field": field}
    assert await get(clients, user.id) == user


async def test_an_inactive_user_can_be_updated_and_a_deleted_one_cannot(clients: Clients) -> None:
    inactive, deleted = await user_in(clients, "INACTIVE"), await user_in(clients, "DELETED")
    assert (await update(clients, User(id=inactive.id, full_name="Grace"))).full_name == "Grace"
    with fails(StatusCode.FAILED_PRECONDITION, "USER_DELETED") as failure:
        await update(clients, User(id=deleted.id, full_name="Grace"))
    assert failure.metadata == {"state": "DELETED"}
    assert precondition(failure.details) == ("USER_DELETED", f"users/{deleted.id}")


# DeactivateUser, ReactivateUser, DeleteUser, UndeleteUser

STATES = {
    "ACTIVE": (),
    "INACTIVE": ("Deactivate",),
    "DELETED_FROM_ACTIVE": ("Delete",),
    "DELETED_FROM_INACTIVE": ("Deactivate", "Delete"),
}
ALLOWED = {
    ("ACTIVE", "Deactivate"): "INACTIVE",
    ("ACTIVE", "Delete"): "DELETED",
    ("INACTIVE", "Reactivate"): "ACTIVE",
    ("INACTIVE", "Delete"): "DELETED",
    ("DELETED_FROM_ACTIVE", "Undelete"): "ACTIVE",
    ("DELETED_FROM_INACTIVE", "Undelete"): "INACTIVE",
}
NEXT = {
    "ACTIVE": "INACTIVE, DELETED",
    "INACTIVE": "ACTIVE, DELETED",
    "DELETED_FROM_ACTIVE": "ACTIVE",
    "DELETED_FROM_INACTIVE": "INACTIVE",
}


async def step(clients: Clients, transition: str, user_id: str) -> User:
    method = f"{transition}User"
    user: User = (await call(clients.channel, method, request_class(method)(id=user_id))).user
    return user


def precondition(details: dict[Any, Any]) -> tuple[str, str]:
    [violation] = details[PreconditionFailure].violations
    return violation.type, violation.subject


@pytest.mark.parametrize("transition", ["Deactivate", "Reactivate", "Delete", "Undelete"])
@pytest.mark.parametrize("state", STATES)
async def test_a_user_goes_only_where_its_state_allows(clients: Clients, state: str, transition: str) -> None:
    user = await clients.create_user()
    for earlier in STATES[state]:
        user = await step(clients, earlier, user.id)
    if wanted := ALLOWED.get((state, transition)):
        changed = await step(clients, transition, user.id)
        assert UserState.Name(changed.state) == f"USER_STATE_{wanted}"
        assert changed.etag != user.etag
        assert await get(clients, user.id) == changed
        return
    with fails(StatusCode.FAILED_PRECONDITION, "ILLEGAL_TRANSITION") as failure:
        await step(clients, transition, user.id)
    assert failure.metadata == {"state": state.partition("_")[0], "allowed": NEXT[state]}
    assert failure.message.endswith(f"allowed next states: {NEXT[state]}")
    assert precondition(failure.details) == ("ILLEGAL_TRANSITION", f"users/{user.id}")
    assert await get(clients, user.id) == user


async def test_a_deleted_user_is_kept_for_30_days(clients: Clients) -> None:
    user = await user_in(clients, "DELETED")
    assert user.delete_time == user.update_time
    assert user.purge_time.ToDatetime() - user.delete_time.ToDatetime() == timedelta(days=30)
    undeleted = await step(clients, "Undelete", user.id)
    assert not undeleted.HasField("delete_time")
    assert not undeleted.HasField("purge_time")


# SetPassword, VerifyPassword


async def test_a_user_signs_in_with_either_name(clients: Clients) -> None:
    user = await clients.create_user()
    assert await sign_in(clients, email=user.email) == user
    assert await sign_in(clients, email=user.email.upper()) == user
    assert await sign_in(clients, username=user.username) == user
    assert await sign_in(clients, username=user.username.upper()) == user


async def test_a_new_password_replaces_the_old_one(clients: Clients) -> None:
    user = await clients.create_user()
    changed = (await clients.users.SetPassword(pb.SetPasswordRequest(id=user.id, password=OTHER_PASSWORD))).user
    assert changed.etag != user.etag
    assert await sign_in(clients, OTHER_PASSWORD, email=user.email) == changed
    with fails(StatusCode.UNAUTHENTICATED, "INVALID_CREDENTIALS"):
        await sign_in(clients, PASSWORD, email=user.email)


async def test_an_inactive_user_gets_a_new_password_and_a_deleted_one_does_not(clients: Clients) -> None:
    inactive, deleted = await user_in(clients, "INACTIVE"), await user_in(clients, "DELETED")
    await clients.users.SetPassword(pb.SetPasswordRequest(id=inactive.id, password=OTHER_PASSWORD))
    await step(clients, "Reactivate", inactive.id)
    await sign_in(clients, OTHER_PASSWORD, email=inactive.email)
    with fails(StatusCode.FAILED_PRECONDITION, "USER_DELETED") as failure:
        await clients.users.SetPassword(pb.SetPasswordRequest(id=deleted.id, password=OTHER_PASSWORD))
    assert precondition(failure.details) == ("USER_DELETED", f"users/{deleted.id}")
    await step(clients, "Undelete", deleted.id)
    await sign_in(clients, PASSWORD, email=deleted.email)


async def test_every_failure_to_sign_in_looks_the_same(clients: Clients) -> None:
    active = await clients.create_user()
    logins = [{"email": active.email, "password": OTHER_PASSWORD}, {"email": "no e-mail", "password": PASSWORD}]
    for user in (active, await user_in(clients, "INACTIVE"), await user_in(clients, "DELETED")):
        password = OTHER_PASSWORD if user is active else PASSWORD
        logins += [{"email": user.email, "password": password}, {"username": user.username, "password": password}]
    logins += [{"email": "nobody@example.com", "password": PASSWORD}, {"username": "NOBODY", "password": PASSWORD}]
    answers = []
    for login in logins:
        with fails(StatusCode.UNAUTHENTICATED, "INVALID_CREDENTIALS") as failure:
            await clients.users.VerifyPassword(pb.VerifyPasswordRequest(**login))
        answers.append((failure.message, {**failure.trailers, "x-request-id": ""}))
    assert answers == [answers[0]] * len(answers)
    assert set(answers[0][1]) == {"grpc-status-details-bin", "x-request-id"}


async def test_a_password_is_rehashed_when_the_parameters_have_changed(database_url: str) -> None:
    async with (
        running_server(database_url) as weak,
        running_server(database_url, argon2_time_cost=2, argon2_memory_kib=16) as strong,
        connect(weak.port) as weak_clients,
        connect(strong.port) as strong_clients,
        driver_connection(database_url) as connection,
    ):

        async def stored() -> str:
            parameters: str = await connection.fetchval(
                "SELECT substring(password_hash from '[$]([^$]*)[$][^$]*[$][^$]*$') FROM user_passwords"
            )
            return parameters

        user = await weak_clients.create_user()
        assert await stored() == "m=8,t=1,p=1"
        with fails(StatusCode.UNAUTHENTICATED, "INVALID_CREDENTIALS"):
            await sign_in(strong_clients, OTHER_PASSWORD, email=user.email)
        assert await stored() == "m=8,t=1,p=1"
        # The user itself does not change.
        assert await sign_in(strong_clients, email=user.email) == user
        assert await stored() == "m=16,t=2,p=1"
        assert await get(strong_clients, user.id) == user
        assert await sign_in(strong_clients, username=user.username) == user


# Secrets


@pytest.mark.parametrize("method", USER_METHODS)
async def test_no_response_holds_a_password_or_its_hash(clients: Clients, method: str) -> None:
    request = await GOOD_REQUESTS[method](clients)
    response = await call_bytes(clients.channel, method, request.SerializeToString())
    # A purge of a user without orders writes no event.
    assert bool(response) == (method != "PurgeUser")
    for secret in (b"argon2", PASSWORD.encode(), OTHER_PASSWORD.encode()):
        assert secret not in response


async def test_passwords_are_stored_nowhere_and_their_hashes_in_one_table(database_url: str) -> None:
    async with (
        serving_clients(database_url) as clients,
        driver_connection(database_url) as connection,
    ):
        for method in ("CreateUser", "SetPassword"):
            request = await GOOD_REQUESTS[method](clients)
            request.request_id = str(uuid4())
            await call(clients.channel, method, request)

        async def tables_with(text: bytes) -> set[str]:
            # Bytes show as hex.
            query = "SELECT count(*) FROM {} t WHERE strpos(t::text, $1) > 0 OR strpos(t::text, $2) > 0"
            counts = {
                name: await connection.fetchval(query.format(name), text.decode(), text.hex())
                for name in metadata.tables
            }
            return {name for name, count in counts.items() if count}

        assert await tables_with(b"argon2id") == {"user_passwords"}
        assert await tables_with(PASSWORD.encode()) == set()
        assert await tables_with(OTHER_PASSWORD.encode()) == set()
        assert "request_ids" in await tables_with(b"@example.com")


# Errors that all methods with one user have.


@pytest.mark.parametrize("method", ["DeactivateUser", "ReactivateUser", "DeleteUser", "UndeleteUser", "SetPassword"])
async def test_a_missing_user_is_not_found_by_any_method(clients: Clients, method: str) -> None:
    request = await GOOD_REQUESTS[method](clients)
    request.id = str(uuid4())
    with fails(StatusCode.NOT_FOUND, "USER_NOT_FOUND") as failure:
        await call(clients.channel, method, request)
    resource = failure.details[ResourceInfo]
    assert isinstance(resource, ResourceInfo)
    assert (resource.resource_type, resource.resource_name) == ("commerce.users.v1.User", request.id)


@pytest.mark.parametrize("length", [8, 128])
async def test_a_password_has_the_same_length_in_every_unicode_form(clients: Clients, length: int) -> None:
    # One code point, three or one.
    forms = ["\u1ec7" * length, "e\u0323\u0302" * length, "\u1eb9\u0302" * length]
    for new in forms:
        user = new_user()
        await clients.users.CreateUser(pb.CreateUserRequest(user=user, password=new))
        for typed in forms:
            await clients.users.VerifyPassword(pb.VerifyPasswordRequest(email=user.email, password=typed))
    row = UserImportRow(email=new_user().email, username=new_user().username, password=forms[1])
    requests = [pb.ImportUsersRequest(config=UserImportConfig()), pb.ImportUsersRequest(row=row)]
    assert (await clients.users.ImportUsers(iter(requests))).created_count == 1
    await clients.users.VerifyPassword(pb.VerifyPasswordRequest(email=row.email, password=forms[0]))
    row = UserImportRow(email=new_user().email, username=new_user().username, password="e\u0323\u0302" * 7)
    requests = [pb.ImportUsersRequest(config=UserImportConfig()), pb.ImportUsersRequest(row=row)]
    (failure,) = (await clients.users.ImportUsers(iter(requests))).failures
    assert failure.field == "password"
