"""Build the documentation as a site: `python -m docs.site.build [OUTPUT]`, which `make site` runs.

The pages are those of `docs/` and a few others of the repository, which stay where they are and keep the links that
work there; `pages.py` copies them with the links of the site. The reference is generated from the protos
(`reference.py`) and from the commands (`commands.py`), and is in no commit. Neither the build nor the
site reads anything from the network.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import click

from docs.site.commands import command_pages
from docs.site.links import problems_of
from docs.site.navigation import NavigationError, complete
from docs.site.pages import ROOT, BrokenLinkError, write_pages
from docs.site.reference import reference

CONFIGURATION = Path(__file__).with_name("zensical.toml")
STYLE = Path(__file__).with_name("style.css")
# Names in the folder that the program reads.
PAGES, SITE = "pages", "site"


def build(output: Path) -> None:
    """Build the site, and put it in place of an earlier one.

    Raises:
        click.ClickException: a link is broken, a page is not in the navigation, or the program reports a problem.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    # Beside the output, so that moving it there is one step.
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".site-") as temporary:
        folder = Path(temporary)
        try:
            write_sources(folder)
        except (BrokenLinkError, NavigationError) as error:
            raise click.ClickException(str(error)) from error
        command = [sys.executable, "-m", "zensical", "build", "--strict", "--config-file", "zensical.toml"]
        built = subprocess.run(command, check=False, cwd=folder, stderr=subprocess.PIPE, text=True)  # noqa: S603 - the arguments are ours
        # In strict mode, its problems are followed by a traceback of its own.
        click.echo(built.stderr.partition("Traceback")[0], nl=False, err=True)
        if built.returncode != 0:
            raise click.ClickException("the site has the problems above")
        if problems := problems_of(folder / SITE):
            raise click.ClickException("\n".join(problems))
        if output.exists():
            shutil.rmtree(output)
        (folder / SITE).rename(output)


def write_sources(folder: Path) -> None:
    """Write what the site is made from into a folder: the pages, and the configuration with the whole navigation.

    Raises:
        BrokenLinkError: a page links to what is not there.
        NavigationError: the navigation and the pages do not agree.
    """
    pages = folder / PAGES
    write_pages(pages)
    for name, text in {**reference(ROOT / "docs"), **command_pages()}.items():
        path = pages / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    shutil.copy(STYLE, pages)
    project = tomllib.loads(CONFIGURATION.read_text("utf-8"))["project"]
    project |= {"docs_dir": PAGES, "site_dir": SITE, "extra_css": [STYLE.name], "nav": complete(project["nav"], pages)}
    (folder / "zensical.toml").write_text(f"project = {_toml(project)}\n", "utf-8")


def _toml(value: object) -> str:
    """Return a value as TOML, on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    # Strings, numbers and booleans are written as in JSON.
    return json.dumps(value)


@click.command()
@click.argument("output", type=click.Path(path_type=Path), default=ROOT / "dist" / "site")
def main(output: Path) -> None:
    """Build the documentation as a site in the folder OUTPUT."""
    build(output.absolute())
    click.echo(f"The site is in {output}. To read it: python3 -m http.server --bind 127.0.0.1 --directory {output}")


if __name__ == "__main__":
    main()
