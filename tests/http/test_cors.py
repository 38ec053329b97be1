"""Which web pages may call."""

from collections.abc import AsyncIterator, Mapping

import pytest

from service.config import HttpServerSettings, SettingsError, load
from tests.http.conftest import Site, running_site
from tests.support.http_calls import USERS

GET_USER, CREATE_USER = f"{USERS}/GetUser", f"{USERS}/CreateUser"
SHOP, OTHER = "https://shop.example.com", "https://other.example.com"
ALLOWED = "access-control-allow-origin"


@pytest.fixture(scope="module")
async def shop_site(shared_database_url: str) -> AsyncIterator[Site]:
    async with running_site(shared_database_url, http_cors_origins=f"{SHOP}, http://localhost:5173") as site:
        yield site


def preflight(origin: str, method: str = "POST") -> Mapping[str, str]:
    return {"origin": origin, "access-control-request-method": method, "access-control-request-headers": "x-api-key"}


async def test_a_page_of_a_named_origin_may_call(shop_site: Site) -> None:
    asked = await shop_site.http.options(GET_USER, headers=dict(preflight(SHOP)))
    assert asked.status_code == 204
    assert asked.headers[ALLOWED] == SHOP
    assert asked.headers["access-control-allow-methods"] == "GET, POST"
    assert "x-api-key" in asked.headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in asked.headers
    called = await shop_site.http.post(GET_USER, json={"username": "nobody"}, headers={"origin": SHOP})
    assert (called.status_code, called.headers[ALLOWED]) == (404, SHOP)
    assert "grpc-status-details-bin" in called.headers["access-control-expose-headers"]
    assert called.headers["vary"] == "origin"


async def test_a_method_with_side_effects_is_not_allowed_by_get(shop_site: Site) -> None:
    asked = await shop_site.http.options(CREATE_USER, headers=dict(preflight(SHOP)))
    assert asked.headers["access-control-allow-methods"] == "POST"


async def test_a_page_of_another_origin_may_not(shop_site: Site) -> None:
    asked = await shop_site.http.options(GET_USER, headers=dict(preflight(OTHER)))
    called = await shop_site.http.post(GET_USER, json={"username": "nobody"}, headers={"origin": OTHER})
    for response in (asked, called):
        assert ALLOWED not in response.headers
        assert "access-control-allow-headers" not in response.headers
        assert response.headers["vary"] == "origin"


async def test_no_page_may_call_by_default(site: Site) -> None:
    asked = await site.http.options(GET_USER, headers=dict(preflight(SHOP)))
    assert not [name for name in asked.headers if name.startswith("access-control-")]


async def test_a_form_of_a_page_cannot_call(site: Site) -> None:
    """A browser sends these without asking, so none of them may be a call."""
    for content_type in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        response = await site.http.post(CREATE_USER, content=b"{}", headers={"content-type": content_type})
        assert response.status_code == 415
    assert (await site.http.post(CREATE_USER)).status_code == 415


@pytest.mark.parametrize("origins", ["shop.example.com", "https://shop.example.com/", "https://a.example/x", "null"])
def test_an_origin_is_a_scheme_and_a_host(origins: str) -> None:
    with pytest.raises(SettingsError, match="COMMERCE_HTTP_CORS_ORIGINS is wrong: each must be a scheme and a host"):
        load(HttpServerSettings, http_cors_origins=origins)
