"""Run experiments, print a line for each, and write the table in docs/reliability.md: `make faults`.

    python -m tests.faults.run                            all, which takes up to 40 minutes, and writes the table
    python -m tests.faults.run server-kills --seed 42     only some, again with the same seed
    python -m tests.faults.run --smoke                    each for a few seconds, without controls and criteria of time

The exit status is 1 if a criterion was not met, or if a control met it: such an experiment would not notice a defect.
"""

import asyncio
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import click

from service.devtools.embedded_postgres import embedded_postgres
from tests.faults.experiment import Experiment, NotPossible, Plan, Result, all_experiments
from tests.faults.report import DOCUMENT, Outcome, figures, write
from tests.support.databases import migrated_template

# An experiment that takes this long hangs.
_SECONDS = 900.0


@click.command()
@click.argument("names", nargs=-1)
@click.option("--seed", type=int, help="[default: another one each time]")
@click.option("--smoke", is_flag=True, help="Run each for a few seconds only.")
def main(*, names: Sequence[str], seed: int | None, smoke: bool) -> None:
    """Run all experiments, or only those named."""
    experiments = _named(names)
    seed = Random().randrange(10**9) if seed is None else seed
    start = time.monotonic()
    with TemporaryDirectory(prefix="faults-") as folder, embedded_postgres(Path(folder) / "postgres") as url:
        template = asyncio.run(migrated_template(url))
        plan = Plan(url, template, Path(folder), seed, smoke)
        outcomes = [outcome for experiment in experiments if (outcome := _outcome(experiment, plan))]
    failed = [outcome for outcome in outcomes if not outcome.passed]
    passed, seconds = len(outcomes) - len(failed), time.monotonic() - start
    click.echo(f"{passed} of {len(experiments)} passed, {len(failed)} failed in {seconds:.0f} s, SEED={seed}")
    if not names and not smoke:
        write(outcomes)
        click.echo(f"wrote the table in {DOCUMENT}")
    sys.exit(bool(failed))


def _named(names: Sequence[str]) -> Sequence[Experiment]:
    experiments = {experiment.name: experiment for experiment in all_experiments()}
    if unknown := set(names) - set(experiments):
        raise click.ClickException(f"no experiment {', '.join(sorted(unknown))}; there are {', '.join(experiments)}")
    return [experiments[name] for name in names] or list(experiments.values())


def _outcome(experiment: Experiment, plan: Plan) -> Outcome | None:
    """Run an experiment and its control, and print a line; returns None if this machine does not allow it."""
    start = time.monotonic()
    problems: list[str] = []
    result, control = Result(), Result()
    try:
        result = _result(experiment, plan)
        problems += result.broken if plan.smoke else result.broken + result.late
        if not plan.smoke:
            control = asyncio.run(_measure(experiment.control, plan))
            if not control.broken and not control.late:
                problems.append(f"void: the criterion is met without {experiment.defence}")
    except NotPossible as reason:
        click.echo(f"{experiment.name}: not tried: {reason}")
        return None
    except Exception as error:  # noqa: BLE001 - the other experiments still run
        traceback.print_exc()
        problems.append(f"void: {error!r}")
    outcome = Outcome(experiment, result, control, plan.seed, time.monotonic() - start, problems)
    words = f"{experiment.name}: {'passed' if outcome.passed else 'FAILED'}: {figures(result)}"
    if not plan.smoke:
        words += f"; without {experiment.defence}: {figures(control)}"
    click.echo(f"{words} (SEED={plan.seed}, {outcome.seconds:.0f} s)")
    for problem in problems:
        click.echo(f"    {problem}")
    return outcome


def _result(experiment: Experiment, plan: Plan) -> Result:
    """Run an experiment, and once more if it has missed only criteria about time.

    What else runs on the machine may be the cause, and can only make it slower. The report says that it ran twice.
    """
    result = asyncio.run(_measure(experiment.run, plan))
    if plan.smoke or result.broken or not result.late:
        return result
    click.echo(f"{experiment.name}: too slow, runs again: {'; '.join(result.late)}: {figures(result)}")
    result = asyncio.run(_measure(experiment.run, plan))
    result.figures["runs"] = 2
    return result


async def _measure(trial: Callable[[Plan], Awaitable[Result]], plan: Plan) -> Result:
    with TemporaryDirectory(dir=plan.folder) as folder:
        async with asyncio.timeout(_SECONDS):
            return await trial(replace(plan, folder=Path(folder)))


if __name__ == "__main__":
    main()
