import commerce.users.v1.user_service_pb2 as pb
import grpc
import pytest
from commerce.users.v1.user_pb2 import User, UserProfile
from google.protobuf.field_mask_pb2 import FieldMask

from tests.support.clients import Clients
from tests.support.databases import driver_connection
from tests.support.failures import fails
from tests.support.sent_statements import sent_statements


async def update(clients: Clients, user: User, *paths: str) -> User:
    request = pb.UpdateUserRequest(user=user, update_mask=FieldMask(paths=paths) if paths else None)
    return (await clients.users.UpdateUser(request)).user


async def test_a_user_is_created_with_its_profile(clients: Clients) -> None:
    profile = UserProfile(bio="Likes engines.\nAnd punched cards.", avatar_url="https://example.com/ada.png")
    user = await clients.create_user(profile=profile)
    assert user.profile == profile
    assert (await clients.users.GetUser(pb.GetUserRequest(id=user.id))).user == user


@pytest.mark.parametrize(
    ("paths", "bio", "avatar_url"),
    [
        (["profile.bio"], "new", "https://example.com/old.png"),
        (["profile.avatar_url"], "old", "https://example.com/new.png"),
        (["profile"], "new", "https://example.com/new.png"),
        ([], "new", "https://example.com/new.png"),
    ],
)
async def test_a_mask_reaches_into_the_profile(clients: Clients, paths: list[str], bio: str, avatar_url: str) -> None:
    user = await clients.create_user(profile=UserProfile(bio="old", avatar_url="https://example.com/old.png"))
    new = User(id=user.id, profile=UserProfile(bio="new", avatar_url="https://example.com/new.png"))
    updated = await update(clients, new, *paths)
    assert updated.profile == UserProfile(bio=bio, avatar_url=avatar_url)
    assert updated.email == user.email
    assert (await clients.users.GetUser(pb.GetUserRequest(id=user.id))).user == updated


async def test_a_named_field_of_the_profile_that_is_not_set_is_emptied(clients: Clients) -> None:
    user = await clients.create_user(profile=UserProfile(bio="old", avatar_url="https://example.com/old.png"))
    updated = await update(clients, User(id=user.id), "profile")
    assert updated.profile == UserProfile()


async def test_a_user_without_a_profile_row_gets_one_with_its_first_change(
    clients: Clients, shared_database_url: str
) -> None:
    user = await clients.create_user()
    async with driver_connection(shared_database_url) as connection:
        await connection.execute("DELETE FROM user_profiles WHERE user_id = $1", user.id)
    assert (await clients.users.GetUser(pb.GetUserRequest(id=user.id))).user == user
    updated = await update(clients, User(id=user.id, profile=UserProfile(bio="new")))
    assert updated.profile.bio == "new"


async def test_an_unknown_field_of_the_profile_is_refused(clients: Clients) -> None:
    user = await clients.create_user()
    with fails(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_UPDATE_MASK", field="update_mask"):
        await update(clients, user, "profile.hobby")


async def test_line_breaks_of_windows_are_stored_as_line_feeds(clients: Clients) -> None:
    user = await clients.create_user(profile=UserProfile(bio="one\r\n\ttwo\rthree" + "\r\n" * 900))
    assert user.profile.bio == "one\n\ttwo\nthree" + "\n" * 900
    assert (await clients.users.GetUser(pb.GetUserRequest(id=user.id))).user == user
    same = User(id=user.id, profile=UserProfile(bio=user.profile.bio.replace("\n", "\r\n")))
    assert await update(clients, same) == user


@pytest.mark.parametrize(
    "profile", [UserProfile(bio="\r\n" * 1001), UserProfile(bio="\0"), UserProfile(avatar_url="javascript:alert(1)")]
)
async def test_a_wrong_profile_is_refused(clients: Clients, profile: UserProfile) -> None:
    path = "user.profile.bio" if profile.bio else "user.profile.avatar_url"
    with fails(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", field=path):
        await clients.create_user(profile=profile)


async def test_a_user_and_its_profile_are_read_with_one_statement(clients: Clients) -> None:
    user = await clients.create_user(profile=UserProfile(bio="one"))
    with sent_statements() as sent:
        await clients.users.GetUser(pb.GetUserRequest(id=user.id))
    assert len(sent) == 1
