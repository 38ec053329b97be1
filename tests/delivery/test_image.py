"""The image of the Dockerfile, as far as it can be made without a container engine, and without a network."""

import json
import os
import re
import subprocess
import sys
import venv
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement

from service.http.console import console_pages
from tests.support.paths import ROOT

VERSION = distribution("commerce-service").version
DOCKERFILE = (ROOT / "Dockerfile").read_text()
(EXTRAS,) = re.findall(r"^ARG EXTRAS=(\S+)$", DOCKERFILE, re.MULTILINE)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheels that go into the image, by name; built as the Dockerfile builds them."""
    folder = tmp_path_factory.mktemp("wheels")
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    assert " ".join(build) in DOCKERFILE
    _run(sys.executable, "-m", "pip", "--quiet", *build, folder, ROOT, ROOT / "client")
    return {path.name.split("-")[0]: path for path in folder.iterdir()}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory, wheels: dict[str, Path]) -> Path:
    """An environment like the image's: the wheels, and what requirements/run.txt locks, linked instead of installed."""
    folder = tmp_path_factory.mktemp("image")
    venv.create(folder)
    site_packages = next(folder.glob("lib/python*/site-packages"))
    for requirement in _locked("run"):
        installed = distribution(requirement.name)
        assert requirement.specifier.contains(installed.version), requirement
        for file in installed.files or ():
            if ".." not in file.parts:
                (site_packages / file).parent.mkdir(parents=True, exist_ok=True)
                (site_packages / file).symlink_to(Path(str(installed.locate_file(file))))
    install = ["install", "--no-index", "--find-links"]
    assert f'{" ".join(install)} /opt/wheels "commerce-service[${{EXTRAS}}]"' in DOCKERFILE
    # It finds nothing but these wheels, so all that the extras need is locked.
    service = f"commerce-service[{EXTRAS}]"
    _run(
        sys.executable, "-m", "pip", "--python", folder, "--quiet", *install, wheels["commerce_service"].parent, service
    )
    return folder


def test_everything_that_the_dockerfile_copies_is_in_its_context() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE):
        for source in sources.split():
            assert (ROOT / source).exists(), source
            assert {source, source.split("/")[0]} & allowed, source


def test_the_labels_describe_this_project() -> None:
    labels = dict(re.findall(r'org\.opencontainers\.image\.([\w.]+)="([^"]*)"', DOCKERFILE))
    metadata = distribution("commerce-service").metadata
    assert (labels["version"], labels["description"]) == (VERSION, metadata["Summary"])
    assert labels["licenses"] == metadata["License-Expression"]
    # The others are filled in by the build.
    arguments = {name: value[2:-1] for name, value in labels.items() if value.startswith("$")}
    assert arguments == {"revision": "REVISION", "source": "SOURCE", "base.name": "PYTHON_IMAGE"}
    final_stage = DOCKERFILE.rpartition("FROM ")[2]
    for argument in arguments.values():
        assert re.search(f"^ARG {argument}(=|$)", final_stage, re.MULTILINE), argument


def test_the_wheel_holds_the_service_and_its_migrations_only(wheels: dict[str, Path]) -> None:
    names = ZipFile(wheels["commerce_service"]).namelist()
    migrations = {path.relative_to(ROOT) for path in (ROOT / "migrations").rglob("*.py")}
    assert {str("service" / path) for path in migrations} <= set(names)
    assert {name.split("/")[0] for name in names} == {"service", f"commerce_service-{VERSION}.dist-info"}


def test_the_image_has_the_extras_of_its_build_argument_and_no_others_are_taken(image: Path) -> None:
    program = "import connectrpc, nats, prometheus_client, uvicorn"
    assert _run(image / "bin" / "python", "-c", program, env={}) == ""
    # The step of the Dockerfile, with the folder of this image instead of its own.
    (check,) = re.findall(r"IFS=, && for extra in .+?done", DOCKERFILE, re.DOTALL)
    check = check.replace("/opt/commerce", str(image))
    for extras, status in ((EXTRAS, 0), ("", 0), ("http,reley", 1)):
        ran = subprocess.run(
            ["sh", "-c", check],
            env={"EXTRAS": extras, "PATH": os.environ["PATH"]},
            text=True,
            capture_output=True,
            check=False,
        )
        assert ran.returncode == status, extras
    assert ran.stderr == "EXTRAS: there is no extra reley\n"


def test_the_image_has_the_files_of_the_http_port(image: Path, tmp_path: Path) -> None:
    program = """
from service.http.console import console_pages
from service.http.pages import pages
print(len(console_pages(0, tls=False)), len(pages()))
"""
    consoles, documents = _run(image / "bin" / "python", "-c", program, cwd=tmp_path, env={}).split()
    assert (int(consoles), int(documents)) == (len(console_pages(0, tls=False)), 2)


def test_the_image_migrates_a_database_and_finds_it_good(image: Path, empty_database_url: str, tmp_path: Path) -> None:
    [entrypoint] = json.loads(re.findall(r"^ENTRYPOINT (.+)$", DOCKERFILE, re.MULTILINE)[0])
    environment = {"PATH": str(image / "bin"), "DATABASE_URL": empty_database_url}

    def commerce(*arguments: str) -> str:
        return _run(image / "bin" / entrypoint, *arguments, cwd=tmp_path, env=environment)

    assert commerce("version").startswith(f"commerce {VERSION}, schema ")
    assert commerce("migrate") == "migrated\n"
    assert commerce("migrate", "--check") == "the schema is up to date\n"


def test_the_locks_that_the_image_is_built_from_agree_with_the_one_for_development() -> None:
    locked = {requirement.name: requirement for requirement in _locked("dev")}
    for name in ("run", "build", "uv"):
        for requirement in _locked(name):
            assert requirement.specifier == locked[requirement.name].specifier, requirement


def _locked(name: str) -> Iterator[Requirement]:
    """The requirements of a lock that this machine needs."""
    for line in (ROOT / "requirements" / f"{name}.txt").read_text().splitlines():
        if line[:1].isalnum():
            requirement = Requirement(line.removesuffix("\\"))
            if not requirement.marker or requirement.marker.evaluate():
                yield requirement


def _run(*command: str | Path, **options: object) -> str:
    ran = subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    assert ran.returncode == 0, ran.stderr
    return str(ran.stdout)
