"""Why a batch stands still: one reason, in one plain sentence that says what to do.

Judged from what the store has and what workers last reported. A batch whose requests are with an upstream does not
stand still, however long a reply takes; where no reason is certain there is none.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from lowtide.domain.states import BatchState
from lowtide.ports.live import Progress, WorkerSeen
from lowtide.ports.report import LaneReport, UpstreamTrouble

Serves = Callable[[str, str], bool]
"""Tells whether the upstream of the first name may have the model of the second."""


class Reason(StrEnum):
    """Why a batch stands still, for programs."""

    NO_WORKER = "no_worker"
    UPSTREAM_DOWN = "upstream_down"
    UPSTREAM_REFUSES_US = "upstream_refuses_us"
    UPSTREAM_HAS_NO_ENDPOINT = "upstream_has_no_endpoint"
    STORE_TROUBLE = "store_trouble"
    WAITING_FOR_RETRY = "waiting_for_retry"
    BEHIND_OTHER_BATCHES = "behind_other_batches"


@dataclass(frozen=True, slots=True)
class Standing:
    """A reason, and the sentence for people."""

    reason: Reason
    text: str


def standing_still(progress: Progress, workers: Sequence[WorkerSeen], serves: Serves) -> Standing | None:
    """Return why a batch stands still, or None when it moves, has ended or is about to move."""
    if progress.batch.state is not BatchState.IN_PROGRESS or progress.counts.processing == 0:
        return None
    if not workers:
        text = "No worker is running: start one with `lowtide worker`, or `lowtide serve` without --no-worker."
        return Standing(Reason.NO_WORKER, text)
    able = [worker for worker in workers if worker.store_trouble is None]
    if not able:
        text = f"Workers cannot store results ({workers[0].store_trouble}): look at the disk and the object store."
        return Standing(Reason.STORE_TROUBLE, text)
    lanes = [
        lane
        for worker in able
        for lane in worker.lanes
        if not progress.models or any(serves(lane.upstream, model) for model in progress.models)
    ]
    if lanes and all(lane.trouble is not None for lane in lanes):
        return _upstream_trouble(lanes[0])
    return _waiting(progress, able)


def _waiting(progress: Progress, workers: Sequence[WorkerSeen]) -> Standing | None:
    """Return why requests wait although there are workers and upstreams for them."""
    if progress.leased == 0:
        if any(worker.held for worker in workers):
            text = "Requests of other batches are being run first; this one's turn comes by itself."
            return Standing(Reason.BEHIND_OTHER_BATCHES, text)
        return None
    in_flight = sum(lane.in_flight for worker in workers for lane in worker.lanes)
    put_aside = sum(worker.put_aside for worker in workers)
    if in_flight == 0 and put_aside:
        text = (
            "The upstream was busy or failed; its requests wait a while and are tried again by themselves. "
            "If it goes on, look at the upstream's load and log."
        )
        return Standing(Reason.WAITING_FOR_RETRY, text)
    return None


def _upstream_trouble(lane: LaneReport) -> Standing:
    said = f" ({lane.text})" if lane.text else ""
    match lane.trouble:
        case UpstreamTrouble.REFUSES_US:
            text = f"The upstream {lane.upstream} refuses our credential{said}: mend its key_env or key_file."
            return Standing(Reason.UPSTREAM_REFUSES_US, text)
        case UpstreamTrouble.NO_ENDPOINT:
            text = f"The upstream {lane.upstream} has no /v1/messages{said}: check its url, or upgrade the server."
            return Standing(Reason.UPSTREAM_HAS_NO_ENDPOINT, text)
        case UpstreamTrouble.DOWN | None:
            text = f"The upstream {lane.upstream} cannot be reached{said}: start it; the batch goes on by itself."
            return Standing(Reason.UPSTREAM_DOWN, text)
