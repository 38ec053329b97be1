"""The TypeScript client keeps its promises against real servers, and its package works in a project of its own."""

import filecmp
import json
import os
import re
import shutil
import sys
import tarfile
from pathlib import Path

import commerce.users.v1.user_service_pb2 as users_pb
import pytest

from tests.clients.conftest import run
from tests.support.browsers import CHROMIUM, running_browser, serving_files
from tests.support.clients import connect, new_user
from tests.support.passwords import PASSWORD
from tests.support.paths import ROOT
from tests.support.processes import Process, free_port, serving
from tests.support.waiting import eventually

GENERATED = Path("src", "gen")
PACKED = ("LICENSE", "README.md", "package.json", "dist/")


async def test_it_passes_its_own_tests(
    typescript: Path, environment: dict[str, str], identities: Path, database_url: str, another_database_url: str
) -> None:
    variables = {**environment, "TEST_IDENTITIES": str(identities), "TEST_ANOTHER_DATABASE": another_database_url}
    http_port = free_port()
    variables["TEST_HTTP_URL"] = f"http://127.0.0.1:{http_port}"
    async with serving(database_url, watch_checkpoint_interval=0.1, http_port=http_port) as server:
        variables["TEST_ADDRESS"] = f"127.0.0.1:{await server.port()}"
        run("npm", "test", folder=typescript, environment=variables)


def test_its_style_is_that_of_the_linter(typescript: Path) -> None:
    run("npm", "run", "lint", folder=typescript)


def test_so_is_the_style_of_the_console(typescript: Path) -> None:
    config, files = ROOT / "clients" / "console" / "biome.jsonc", ROOT / "service" / "http" / "web"
    run("npx", "biome", "ci", "--error-on-warnings", "--config-path", config, files, folder=typescript)


def test_only_the_module_for_node_needs_node(typescript: Path) -> None:
    """All other modules compile without the types of Node.js, which would be missing in a browser."""
    run("npx", "tsc", "-p", "tsconfig.browser.json", folder=typescript)


def test_generating_again_changes_nothing(typescript: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "clients.typescript.generate", tmp_path / "gen", folder=ROOT)
    again, committed = files_in(tmp_path / "gen"), files_in(typescript / GENERATED)
    assert again == committed
    assert len(again) > 10
    _, different, unreadable = filecmp.cmpfiles(tmp_path / "gen", typescript / GENERATED, sorted(again), shallow=False)
    assert (different, unreadable) == ([], [])
    assert [name for name in again if "@generated" not in (typescript / GENERATED / name).read_text()] == []


def files_in(folder: Path) -> set[str]:
    """Return the paths of all files in a folder, relative to it."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def package(typescript: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as `npm pack` writes it."""
    folder = tmp_path_factory.mktemp("package")
    run("npm", "pack", "--silent", "--pack-destination", folder, folder=typescript)
    (package,) = folder.glob("*.tgz")
    return package


def test_the_package_has_what_runs_and_nothing_else(package: Path) -> None:
    with tarfile.open(package) as archive:
        names = {name.removeprefix("package/") for name in archive.getnames()}
    assert {name for name in names if not name.startswith(PACKED)} == set()
    assert {"LICENSE", "README.md", "dist/index.js", "dist/index.d.ts", "dist/node.js", "dist/web.js"} <= names


@pytest.fixture(scope="module")
def project(typescript: Path, package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new project in which the package is installed, with the documented examples, compiled."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "package.json").write_text('{"type": "module", "private": true}')
    versions = json.loads((typescript / "package.json").read_text())["devDependencies"]
    tools = [f"{name}@{versions[name]}" for name in ("typescript", "@types/node")]
    run("npm", "install", "--silent", "--no-audit", "--no-fund", "--prefer-offline", package, *tools, folder=folder)
    example, browser = blocks(typescript / "README.md", "ts")
    (folder / "example.ts").write_text(example)
    (folder / "browser.ts").write_text(f"declare const session: {{ token(): Promise<string> }};\n{browser}")
    (calling,) = blocks(ROOT / "docs" / "calling.md", "ts")
    (folder / "calling.ts").write_text(calling)
    compiler = ("npx", "tsc", "--strict", "--target", "es2022", "--module", "nodenext", "--types", "node")
    shutil.copy(Path(__file__).with_name("page.ts"), folder)
    run(*compiler, "example.ts", "browser.ts", "calling.ts", "page.ts", folder=folder)
    return folder


async def test_the_example_prints_what_the_readme_shows(typescript: Path, project: Path, database_url: str) -> None:
    async with serving(database_url) as server, connect(await server.port()) as clients:
        user = new_user(email="ada@example.com", username="ada")
        await clients.users.CreateUser(users_pb.CreateUserRequest(user=user, password=PASSWORD))
        environment = {**os.environ, "COMMERCE_ADDRESS": f"127.0.0.1:{await server.port()}"}
        printed = run("node", "example.js", folder=project, environment=environment)
    assert [printed] == blocks(typescript / "README.md", "text")


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
async def test_a_page_in_a_browser_uses_the_package_from_another_origin(
    typescript: Path, project: Path, database_url: str, tmp_path: Path
) -> None:
    bundler = typescript / "node_modules" / ".bin" / "esbuild"
    run(bundler, "page.js", "--bundle", "--format=iife", f"--outfile={tmp_path / 'page.js'}", folder=project)
    (tmp_path / "index.html").write_text(
        '<!doctype html><link rel="icon" href="data:,"><script src="page.js"></script>'
    )
    with serving_files(tmp_path) as origin:
        async with (
            serving(database_url, http_port=0, http_cors_origins=origin, watch_checkpoint_interval=0.1) as server,
            running_browser() as browser,
        ):
            service = f"http://127.0.0.1:{(await server.until_logged('serving'))['http_port']}"
            page = await browser.new_page()
            await page.goto(origin)
            assert await page.evaluate("url => page.unary(url, 'unary')", service) == {
                "total": "21.00",
                "status": "CONFIRMED",
                "isListed": True,
            }
            assert await page.evaluate("url => page.errors(url, 'errors')", service) == {
                "allowed": ["CONFIRMED", "CANCELLED"],
                "outcome": "not_written",
                "named": True,
                "fields": ["order.user_id"],
            }
            assert await page.evaluate("url => page.streams(url, 'streams')", service) == {
                "exported": True,
                "seen": True,
            }
            await eventually(lambda: statuses(server, "OrderService/WatchOrders") == ["CANCELLED"])
            # The same page under a name that the service does not know.
            await page.goto(origin.replace("127.0.0.1", "localhost"))
            assert await page.evaluate("url => page.refused(url)", service) == "not_written"
            assert statuses(server, "UserService/ListUsers") == []


def statuses(server: Process, method: str) -> list[str]:
    """Return the codes of all calls of a method that the server has logged."""
    return [line["code"] for line in server.logged("call") if line["method"].endswith(method)]


def blocks(document: Path, language: str) -> list[str]:
    """Return the fenced blocks of a document that are in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", document.read_text(), re.DOTALL | re.MULTILINE)
