"""The rig in small: a few kills and pauses, a few fault points, a few power cuts. `make crash` does it at length."""

import shutil
from pathlib import Path

import pytest
from tests.rig import points, power_cut, run


@pytest.mark.timeout(400)
def test_what_was_accepted_ends_exactly_once_whatever_is_killed_and_paused(tmp_path: Path) -> None:
    plan = run.Plan(kills=12, pauses=4, seed=7, makers=2, open_max=6, extra_workers=2, sizes=(1, 60))
    report = run.run(plan, tmp_path)
    assert not report.violations, report.text()
    assert report.findings.counts["results"], "nothing was done"
    assert report.chaos.done["kills"] == plan.kills


@pytest.mark.timeout(400)
def test_without_kills_no_upstream_call_is_repeated(tmp_path: Path) -> None:
    plan = run.Plan(kills=0, pauses=0, seed=8, makers=2, open_max=4, extra_workers=1, sizes=(20, 60), batches=6)
    report = run.run(plan, tmp_path)
    assert not report.violations, report.text()
    assert report.findings.counts["results"], "nothing was done"
    assert report.findings.counts["upstream calls repeated"] == 0


CASES = points.sample(points.all_cases(), 5, seed=1)


@pytest.mark.parametrize("case", CASES, ids=[f"{case.point} {case.action}" for case in CASES])
@pytest.mark.timeout(200)
def test_a_fault_at_a_commit_point_breaks_nothing(case: points.Case, tmp_path: Path) -> None:
    assert not points.walk(case, tmp_path, seed=3).violations


def test_every_commit_point_is_walked_with_every_action() -> None:
    cases = points.all_cases()
    assert {case.point for case in cases} >= {"intake.batch_rows", "dispatch.segment", "dispatch.rows"}
    assert len(cases) == 6 * len({case.point for case in cases})


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
@pytest.mark.timeout(400)
def test_power_cuts_lose_nothing_acknowledged_and_the_method_sees_a_missing_sync(tmp_path: Path) -> None:
    violations, text = power_cut.run(tmp_path, seed=5, batches=4, cuts=4, planted_cuts=1)
    assert not violations, text
