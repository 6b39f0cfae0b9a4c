"""A batch that stands still has one reason, and one that moves has none."""

from dataclasses import replace

import pytest

from lowtide.api.standing import Reason, standing_still
from lowtide.domain.outcomes import Counts, Usage
from lowtide.domain.states import BatchState
from lowtide.ports.live import Progress, WorkerSeen
from lowtide.ports.metadata import Batch
from lowtide.ports.report import LaneReport, UpstreamTrouble

BATCH = Batch("b", "w", BatchState.IN_PROGRESS, Counts(processing=9), 0, 1, None, None, None, "r", Usage())
WAITING = Progress(BATCH, Counts(processing=9), Usage(), open=1, leased=0, closed=0, models=("m",), recent=())
LEASED = replace(WAITING, open=0, leased=1)
GOOD = LaneReport("box", 0, 64)
DOWN = LaneReport("box", 0, 64, UpstreamTrouble.DOWN, "connection refused")
WORKER = WorkerSeen("worker", "s", 0, 1.0, 0, (GOOD,), 0, None)


def reason(progress: Progress, *workers: WorkerSeen, models: str = "m") -> Reason | None:
    found = standing_still(progress, workers, lambda _, model: model in models)
    assert found is None or found.text.endswith(".")
    return None if found is None else found.reason


def test_without_a_worker_it_stands_still() -> None:
    assert reason(WAITING) is Reason.NO_WORKER


def test_with_a_worker_that_could_take_it_it_does_not() -> None:
    assert reason(WAITING, WORKER) is None


def test_requests_with_an_upstream_are_no_standstill_however_long_they_take() -> None:
    assert reason(LEASED, replace(WORKER, held=1, lanes=(replace(GOOD, in_flight=1),), put_aside=3)) is None


@pytest.mark.parametrize(
    ("trouble", "expected"),
    [
        (UpstreamTrouble.DOWN, Reason.UPSTREAM_DOWN),
        (UpstreamTrouble.REFUSES_US, Reason.UPSTREAM_REFUSES_US),
        (UpstreamTrouble.NO_ENDPOINT, Reason.UPSTREAM_HAS_NO_ENDPOINT),
    ],
)
def test_an_upstream_in_trouble_is_named_with_what_it_said(trouble: UpstreamTrouble, expected: Reason) -> None:
    worker = replace(WORKER, lanes=(LaneReport("box", 0, 64, trouble, "it said so"),))
    found = standing_still(WAITING, [worker], lambda *_: True)
    assert found is not None
    assert found.reason is expected
    assert "box" in found.text
    assert "it said so" in found.text


def test_one_good_upstream_or_one_worker_that_reaches_it_is_enough() -> None:
    assert reason(WAITING, replace(WORKER, lanes=(DOWN, replace(GOOD, upstream="other")))) is None
    assert reason(WAITING, replace(WORKER, lanes=(DOWN,)), WORKER) is None


def test_an_upstream_that_does_not_have_the_model_helps_nobody() -> None:
    worker = replace(WORKER, lanes=(DOWN, replace(GOOD, upstream="other")))
    found = standing_still(WAITING, [worker], lambda upstream, _: upstream == "box")
    assert found is not None
    assert found.reason is Reason.UPSTREAM_DOWN


def test_workers_that_cannot_store_are_the_reason_if_all_are_so() -> None:
    full = replace(WORKER, store_trouble="StoreFull")
    assert reason(LEASED, full) is Reason.STORE_TROUBLE
    assert reason(LEASED, full, WORKER) is None


def test_a_batch_whose_turn_has_not_come_is_behind_others() -> None:
    assert reason(WAITING, replace(WORKER, held=4)) is Reason.BEHIND_OTHER_BATCHES


def test_requests_that_all_wait_for_a_later_try_are_the_reason() -> None:
    assert reason(LEASED, replace(WORKER, held=1, put_aside=9)) is Reason.WAITING_FOR_RETRY


@pytest.mark.parametrize("state", [BatchState.CANCELING, BatchState.ENDED])
def test_only_a_batch_in_progress_stands_still(state: BatchState) -> None:
    assert reason(replace(WAITING, batch=replace(BATCH, state=state))) is None


def test_nothing_left_to_run_is_no_standstill() -> None:
    assert reason(replace(LEASED, counts=Counts(succeeded=9))) is None
