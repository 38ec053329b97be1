"""How the files of the console are served. What it does, tests/console tests in a browser."""

import gzip

import pytest

from service.cli.development import with_http
from service.config import DevelopmentServerSettings, load
from service.http.console import console_pages
from service.server import StartError
from tests.http.conftest import Site, running_site
from tests.support.servers import running_server

FORBIDDEN = ("http://", "https://", "//cdn", "innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(")


async def test_without_the_setting_there_is_no_console(site: Site) -> None:
    for path in ("/console", "/console/", "/console/main.js"):
        assert (await site.http.get(path)).status_code == 404


async def test_files_are_served_compressed_and_asked_for_again(shared_database_url: str) -> None:
    async with running_site(shared_database_url, console=True) as site:
        redirect = await site.http.get("/console")
        assert (redirect.status_code, redirect.headers["location"]) == (308, "console/")
        index = await site.http.get("/console/")
        assert index.headers["content-type"] == "text/html; charset=utf-8"
        assert index.headers["content-encoding"] == "gzip"
        plain = await site.http.get("/console/", headers={"accept-encoding": "identity"})
        assert "content-encoding" not in plain.headers
        assert plain.content == index.content
        assert (await site.http.head("/console/")).content == b""
        module = await site.http.get("/console/main.js")
        assert module.headers["content-type"] == "text/javascript; charset=utf-8"
        tag = module.headers["etag"]
        again = await site.http.get("/console/main.js", headers={"if-none-match": f'"old", {tag}'})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        # The connection can be used for further requests.
        assert (await site.http.get("/console/main.js", headers={"if-none-match": '"old"'})).status_code == 200
        assert (await site.http.post("/console/main.js")).status_code == 405
        assert (await site.http.get("/console/../server.py")).status_code == 404
        server = (await site.http.get("/console/server.json")).json()
        assert server == {"grpcPort": site.server.port, "tls": False}


async def test_browsers_are_told_to_run_nothing_else(shared_database_url: str) -> None:
    async with running_site(shared_database_url, console=True) as site:
        for path in ("/console/", "/console/main.js", "/console/schema.json"):
            headers = (await site.http.get(path)).headers
            policy = headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert "require-trusted-types-for 'script'; trusted-types 'none'" in policy
            assert "frame-ancestors 'none'" in policy
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "no-referrer"


def test_no_file_makes_html_of_texts_or_names_another_server() -> None:
    pages = console_pages(0, tls=False)
    scripts = {path: page.content.decode() for path, page in pages.items() if path.endswith((".js", ".css", "/"))}
    assert len(scripts) > 20
    # Names, not addresses: the namespace of SVG, and what a value must begin with.
    known = ("http://www.w3.org/2000/svg", "http:// or https://", "^https?://")
    for path, text in scripts.items():
        for name in known:
            text = text.replace(name, "")  # noqa: PLW2901 - what is left of it
        assert [word for word in FORBIDDEN if word in text] == [], path
        assert not path.endswith("/") or "style=" not in text


def test_all_of_it_is_smaller_than_the_first_view_may_be() -> None:
    assert sum(len(page.compressed) for page in console_pages(0, tls=False).values()) < 300_000
    assert all(gzip.decompress(page.compressed) == page.content for page in console_pages(0, tls=False).values())


async def test_it_needs_the_http_port(shared_database_url: str) -> None:
    with pytest.raises(StartError, match="COMMERCE_CONSOLE is served by the HTTP port: set COMMERCE_HTTP_PORT"):
        async with running_server(shared_database_url, console=True):
            pass


def test_in_development_it_is_on_unless_it_is_switched_off() -> None:
    def settings(**values: object) -> DevelopmentServerSettings:
        return with_http(load(DevelopmentServerSettings, DATABASE_URL="postgresql:///", port=0, **values))

    assert (settings().console, settings().http_port) == (True, 0)
    assert (settings(console=False).console, settings(http_port=50090).http_port) == (False, 50090)


def test_outside_of_development_it_is_off() -> None:
    assert load(DevelopmentServerSettings, DATABASE_URL="postgresql:///").console is False
