"""Each experiment runs, and the service meets the criteria that do not depend on the speed of the machine."""

from pathlib import Path

import pytest

from tests.faults.experiment import Experiment, NotPossible, Plan, all_experiments


@pytest.mark.parametrize("experiment", all_experiments(), ids=lambda experiment: experiment.name)
async def test_the_service_holds_in_a_short_run_of(
    experiment: Experiment, postgres_url: str, template_url: str, tmp_path: Path
) -> None:
    try:
        result = await experiment.run(Plan(postgres_url, template_url, tmp_path, seed=1, smoke=True))
    except NotPossible as reason:
        pytest.skip(str(reason))
    assert result.broken == [], result.figures
    assert result.figures
