"""The `commerce doctor` command: checks whether the service can run here."""

from collections.abc import Iterator

import click

from service.cli.file_checks import file_findings
from service.cli.running import one_line_errors, run
from service.config import LogSettings, ServerSettings, SettingsError, load, unknown_variables
from service.db.operations.diagnosis import diagnose
from service.db.operations.findings import Finding, Grade
from service.observability.logs import configure_logging

_COLORS = {Grade.OK: "green", Grade.WARN: "yellow", Grade.FAIL: "red"}
# The longest name of a check.
_NAME_WIDTH = 12


def doctor() -> None:
    """Print one line for each check; fails if a check failed."""
    # What a check logs would repeat its finding.
    configure_logging(load(LogSettings, log_level="error", log_format="auto", batched_log_lines=False))
    with one_line_errors():
        failed = sum(map(_print, _findings()))
        if failed:
            raise click.ClickException(f"{failed} check{'s' if failed > 1 else ''} failed")


def _findings() -> Iterator[Finding]:
    for warning in unknown_variables():
        yield Finding(Grade.WARN, "settings", warning)
    try:
        settings = load(ServerSettings)
    except SettingsError as error:
        yield from (Finding(Grade.FAIL, "settings", problem) for problem in str(error).split("; "))
        return
    yield Finding(Grade.OK, "settings", "all values can be used; `commerce config` prints them")
    # Each is printed before the next ones, which may take longer.
    yield from run(file_findings(settings))
    yield from run(diagnose(settings))


def _print(finding: Finding) -> bool:
    """Print a finding, and return whether the check failed."""
    grade = click.style(f"{finding.grade:4}", fg=_COLORS[finding.grade])
    click.echo(f"{grade}  {finding.name:{_NAME_WIDTH}}  {finding.words}")
    return finding.grade is Grade.FAIL
