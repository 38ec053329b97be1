"""`commercectl explain`: what the reason of an error means."""

from __future__ import annotations

import re
from typing import Any

import click

from commerce.client.cli.advice import ADVICE, EXIT_CODES, exit_code
from commerce.client.cli.output import print_values
from commerce.client.cli.session import Session, output_options, pass_session
from commerce.client.errors import ERRORS_BY_REASON
from commerce.client.generated.descriptions import DESCRIPTIONS

_PREFIX = "commerce.common.v1.ErrorReason.ERROR_REASON_"
REASONS = tuple(
    name.removeprefix(_PREFIX)
    for name in DESCRIPTIONS
    if name.startswith(_PREFIX) and not name.endswith("_UNSPECIFIED")
)


class _ReasonType(click.ParamType[str]):
    """A reason, in any case."""

    name = "reason"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the reason as the service writes it."""
        reason = str(value).upper().replace("-", "_")
        if reason not in REASONS:
            near = [known for known in REASONS if set(reason.split("_")) & set(known.split("_"))]
            hint = f"; is it {' or '.join(near)}?" if near else "; without a reason, all are listed"
            self.fail(f"there is no reason {value!r}{hint}", param, ctx)
        return reason

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[click.shell_completion.CompletionItem]:
        """Return the reasons that a text can become."""
        return [
            click.shell_completion.CompletionItem(reason) for reason in REASONS if reason.startswith(incomplete.upper())
        ]


@click.command("explain")
@click.argument("reason", type=_ReasonType(), required=False)
@output_options
@pass_session
def EXPLAIN(session: Session, *, reason: str | None) -> None:  # noqa: N802 - a constant, made by click
    """Explain the REASON of an error: what it means, which methods give it, and what to do."""
    if reason is None:
        rows = [{"reason": name, "code": _description(name)[0]} for name in REASONS]
        print_values(session, rows, ("reason", "code"))
        return
    facts = explained(reason)
    if session.format == "table" and not session.quiet:
        width = max(map(len, facts))
        for name, value in facts.items():
            click.echo(f"{click.style(name.ljust(width), bold=True)}  {value}")
    else:
        print_values(session, [facts], tuple(facts))


def _description(reason: str) -> tuple[str, str]:
    """Return the code of a reason, and what it means."""
    code, _, meaning = DESCRIPTIONS[f"{_PREFIX}{reason}"].partition(": ")
    return code, meaning


def explained(reason: str) -> dict[str, str]:
    """Return what is known of a reason."""
    code, meaning = _description(reason)
    methods = [
        name.rpartition(".")[2]
        for name, text in DESCRIPTIONS.items()
        if re.fullmatch(r"commerce\.\w+\.v1\.\w+Service\.\w+", name) and re.search(rf"\b{reason}\b", text)
    ]
    return {
        "reason": reason,
        "code": code,
        "meaning": meaning[:1].upper() + meaning[1:],
        "what to do": ADVICE[reason],
        "methods": ", ".join(methods) or "any",
        "exception": f"commerce.client.errors.{ERRORS_BY_REASON[reason].__name__}",
        "exit code": _exit_code(reason, code),
    }


def _exit_code(reason: str, code: str) -> str:
    from grpc import StatusCode

    from commerce.client.failures import Failure, Outcome

    outcome = Outcome.UNKNOWN if reason == "OUTCOME_UNKNOWN" else Outcome.NOT_WRITTEN
    failure = Failure(message="", code=StatusCode[code], reason=reason, outcome=outcome)
    number = exit_code(ERRORS_BY_REASON[reason](failure))
    return f"{number} ({EXIT_CODES[number]})"
