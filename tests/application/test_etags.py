from datetime import UTC, datetime

import pytest

from service.application.etags import check_etag
from service.domain.errors import EtagMismatch
from service.domain.users import User

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def changed_user() -> User:
    user = User.create({"email": "ada@example.com", "username": "ada"}, NOW)
    user.update({"full_name": "Ada"}, NOW)
    return user


def test_the_current_etag_matches() -> None:
    user = changed_user()
    check_etag(user, user.etag)


def test_without_an_etag_any_version_matches() -> None:
    check_etag(changed_user(), "")


def test_an_etag_from_before_the_last_change_does_not_match() -> None:
    user = changed_user()
    before = user.etag
    user.deactivate(NOW)
    with pytest.raises(EtagMismatch, match="the user has changed since this etag was read"):
        check_etag(user, before)


@pytest.mark.parametrize("etag", ["v1", "v3", "v02", "V2", "2", " v2", '"v2"', "*"])
def test_nothing_but_the_current_etag_matches(etag: str) -> None:
    with pytest.raises(EtagMismatch):
        check_etag(changed_user(), etag)
