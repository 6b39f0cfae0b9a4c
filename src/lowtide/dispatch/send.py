"""Sending: one try after the other, and what follows from each verdict.

A fixed pool of senders, as many as the gate has places. A sender never waits for anything but its own call: a failed
try is put aside until its time. Invariant one-failure-is-one: whatever one reply or one exception does ends with its
own request. What tells a request's own fault from its upstream's end is here:

- a whole reply that is no use (5xx, rubbish), a timeout: a try of its own, but after FAULTS_IN_A_ROW without one good
  reply the circuit opens and what fails meanwhile uses up nothing;
- a connection that breaks: if every call that was in flight breaks too, the upstream went down: nobody's try is used,
  their chunks are given back with a loss; if a good reply comes first (or in BREAK_JUDGED_S), it was the request's own.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import structlog

from lowtide.dispatch import reply as replies
from lowtide.dispatch.circuit import Trouble
from lowtide.dispatch.hold import Hold, Holds, Pending
from lowtide.dispatch.kit import Kit
from lowtide.dispatch.lanes import Lane, Lanes
from lowtide.dispatch.tries import backoff_s
from lowtide.domain.errors import ErrorType
from lowtide.domain.ids import RUN, new_id
from lowtide.domain.lines import error_result, errored_line, succeeded_line
from lowtide.domain.splice import NoSuchMember
from lowtide.ports.upstream import UpstreamBroke, UpstreamError, UpstreamTimeout, UpstreamUnreachable

FAULTS_IN_A_ROW = 8
BREAK_JUDGED_S = 5.0

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Broke:
    reason: str


@dataclass(frozen=True, slots=True)
class _Unreachable:
    reason: str


@dataclass(frozen=True, slots=True)
class _OutOfTime:
    """The batch's own time is over: expiry will take the request."""


Verdict = replies.Verdict | _Broke | _Unreachable | _OutOfTime

ANSWERS: Final[Mapping[type, str]] = {
    replies.Succeeded: "succeeded",
    replies.Failed: "failed",
    replies.Busy: "busy",
    replies.UnknownModel: "unknown_model",
    replies.Faulty: "faulty",
    replies.Refused: "refuses_us",
    replies.NoEndpoint: "no_endpoint",
    _Unreachable: "unreachable",
    _Broke: "broke",
    _OutOfTime: "out_of_time",
    type(None): "aborted",
}
"""What came of a try, in one word, as it is counted."""


class Senders:
    """The senders of a session: they take requests from the lanes and leave results in the holds."""

    def __init__(self, lanes: Lanes, holds: Holds, kit: Kit) -> None:
        self._lanes = lanes
        self._holds = holds
        self._chooser = kit.chooser
        self._reporter = kit.reporter
        self._settings = kit.settings

    async def serve(self, lane: Lane) -> None:
        """Be one sender of a lane, for ever."""
        me = asyncio.current_task()
        while True:
            pending = await self._lanes.next(lane)
            pending.sender = me
            try:
                verdict = await self._ask(lane, pending)
            except asyncio.CancelledError:
                if not pending.aborted or me is None or me.uncancel() > 0:
                    raise
                verdict = None
                self._said_nothing(lane, pending)
            finally:
                pending.sender = None
                self._lanes.landed(lane, pending)
            self._after(lane, pending, verdict)

    async def _ask(self, lane: Lane, pending: Pending) -> Verdict:
        claimed = pending.hold.claimed
        timeout_s = min(self._settings.request_timeout_s, pending.hold.deadline_s - time.monotonic())
        if timeout_s <= 0:
            return _OutOfTime()
        try:
            body = lane.upstream.prepare(pending.params, claimed.model)
            reply = await lane.upstream.send(body, claimed.headers, timeout_s)
            return replies.judge(reply, model=claimed.model)
        except UpstreamError as error:
            return _verdict_of(error, out_of_time=time.monotonic() >= pending.hold.deadline_s)
        except NoSuchMember:
            return replies.Failed(ErrorType.INVALID_REQUEST, "model: write the name of this member without escapes")
        except Exception:  # noqa: BLE001 a bug of ours in the way of one request must not end all the others in flight
            _log.exception("try.failed", chunk=claimed.key, index=pending.index, upstream=lane.name)
            return replies.Failed(ErrorType.API, "Internal server error")

    def _after(self, lane: Lane, pending: Pending, verdict: Verdict | None) -> None:
        """Do what follows from a try; None stands for one that we aborted."""
        self._reporter.tried(lane.name, ANSWERS[type(verdict)], time.monotonic() - pending.started_s)
        if pending.hold.dropped:
            return
        if verdict is None:
            pending.aborted = False
            self._again(pending)
        else:
            self._settle(lane, pending, verdict)
        if pending.hold.winding_up:
            self._holds.wind_up(pending.hold)

    def _settle(self, lane: Lane, pending: Pending, verdict: Verdict) -> None:
        match verdict:
            case replies.Succeeded(message, usage):
                self._good(lane)
                line = succeeded_line(pending.custom_id, message)
                self._holds.finish(pending.hold, pending.index, line, usage)
                tokens = usage.input_tokens + usage.output_tokens
                self._chooser.note_served(pending.hold.claimed.workspace, tokens)
            case replies.Failed(error_type, message):
                self._good(lane)
                self._errored(pending, error_type, message, ran=True)
            case replies.Busy(retry_after_s):
                self._good(lane)
                pending.busy += 1
                self._again(pending, backoff_s(self._settings, pending.busy, retry_after_s))
            case replies.UnknownModel():
                self._good(lane)
                self._unknown(lane, pending)
            case replies.Faulty(error_type, message):
                self._faulty(lane, pending, error_type, message)
            case replies.Refused(reason):
                self._trouble(lane, pending, Trouble.REFUSES_US, reason)
            case replies.NoEndpoint(reason):
                self._trouble(lane, pending, Trouble.NO_ENDPOINT, reason)
            case _Unreachable(reason):
                self._trouble(lane, pending, Trouble.UNREACHABLE, reason)
            case _Broke(reason):
                self._broke(lane, pending, reason)
            case _OutOfTime():
                self._said_nothing(lane, pending)
                self._out_of_time(pending.hold)

    # ------------------------------------------------------------------------------------------ one request

    def _errored(self, pending: Pending, error_type: ErrorType, message: str, *, ran: bool) -> None:
        error = error_result(error_type, message, new_id(RUN) if ran else None)
        self._holds.finish(pending.hold, pending.index, errored_line(pending.custom_id, error), None)

    def _unknown(self, lane: Lane, pending: Pending) -> None:
        """This upstream does not have the model; it is unknown once every upstream that could have it said so."""
        pending.lanes -= {lane.name}
        if pending.lanes:
            self._again(pending)
        else:
            self._errored(pending, ErrorType.NOT_FOUND, f"model: {pending.hold.claimed.model}", ran=False)

    def _out_of_time(self, hold: Hold) -> None:
        """Give the chunk back: expiry takes it, or, if wall time was set back meanwhile, whoever claims it next."""
        hold.returning = True
        self._lanes.withdraw([hold])

    def _use_try(self, pending: Pending, error_type: ErrorType, message: str) -> None:
        """Count a failed try; the last one makes the request errored."""
        hold = pending.hold
        hold.tries[pending.index] += 1
        hold.tries_changed = True
        tries = hold.tries[pending.index]
        if tries >= self._settings.tries_max:
            self._errored(pending, error_type, message, ran=True)
        else:
            self._again(pending, backoff_s(self._settings, tries))

    def _again(self, pending: Pending, wait_s: float = 0.0) -> None:
        if pending.hold.winding_up:
            return
        self._reporter.retried()
        if pending.hold.suspect and wait_s > self._settings.suspect_wait_s:
            # Nothing else runs while a suspect is held: it comes back when the others had their turn.
            pending.hold.returning = True
            self._lanes.suspects_rest_until_s = time.monotonic() + self._settings.suspect_wait_s
        elif wait_s > 0:
            self._lanes.put_later(pending, wait_s)
        else:
            self._lanes.put(pending, first=True)

    # ------------------------------------------------------------------------------------------ one upstream

    def _good(self, lane: Lane) -> None:
        """A whole, sensible reply: the upstream lives, and what broke before broke by itself."""
        lane.faults = 0
        if lane.circuit.whole_reply():
            _log.info("upstream.recovered", upstream=lane.name)
            self._reporter.recovered()
            self._lanes.wake_all()
            self._lanes.hungry.set()
        if lane.broken:
            self._judge_broken(lane)

    def _faulty(self, lane: Lane, pending: Pending, error_type: ErrorType, message: str) -> None:
        lane.faults += 1
        open_before = lane.circuit.trouble is not None
        if pending.probe or lane.faults >= FAULTS_IN_A_ROW:
            self._open(lane, pending, Trouble.WENT_DOWN, message)
        if open_before and not pending.probe:
            self._again(pending)
        else:
            self._use_try(pending, error_type, message)

    def _trouble(self, lane: Lane, pending: Pending, trouble: Trouble, reason: str) -> None:
        self._open(lane, pending, trouble, reason)
        self._again(pending)
        if trouble is Trouble.UNREACHABLE:
            self._went_down(lane)

    def _broke(self, lane: Lane, pending: Pending, reason: str) -> None:
        if pending.probe and lane.circuit.trouble is not None:
            self._open(lane, pending, Trouble.WENT_DOWN, reason)
            self._use_try(pending, ErrorType.API, reason)
            return
        if not lane.broken:
            lane.broke_s = time.monotonic()
        lane.broken.append(pending)
        if lane.circuit.trouble is not None:
            self._went_down(lane)
        elif not any(other.started_s <= lane.broke_s for other in lane.flying):
            self._open(lane, pending, Trouble.WENT_DOWN, reason)
            self._went_down(lane)

    def _went_down(self, lane: Lane) -> None:
        """The upstream went down with these: no try is used, and their chunks will be given back with a loss."""
        broken, lane.broken = lane.broken, []
        lost = {pending.hold for pending in broken}
        for hold in lost:
            hold.lost = hold.returning = True
        self._lanes.withdraw(lost)
        for hold in lost:
            self._holds.wind_up(hold)

    def _judge_broken(self, lane: Lane) -> None:
        broken, lane.broken = lane.broken, []
        for pending in broken:
            self._use_try(pending, ErrorType.API, "The connection to the model server broke off")

    def judge_old_breaks(self) -> None:
        """Call breaks a request's own fault that nothing explained in BREAK_JUDGED_S."""
        for lane in self._lanes.all.values():
            if lane.broken and time.monotonic() - lane.broke_s > BREAK_JUDGED_S:
                self._judge_broken(lane)

    def _said_nothing(self, lane: Lane, pending: Pending) -> None:
        if pending.probe:
            lane.circuit.gave_up()

    def _open(self, lane: Lane, pending: Pending, trouble: Trouble, reason: str) -> None:
        if lane.circuit.fail(trouble, time.monotonic(), probe=pending.probe):
            _log.warning("upstream.trouble", upstream=lane.name, trouble=trouble.value, reason=reason)
            self._reporter.trouble(lane.name, reason)


def refusal_line(custom_id: str, error_type: ErrorType, message: str) -> bytes:
    """Return the line of a request that never went anywhere."""
    return errored_line(custom_id, error_result(error_type, message, None))


def _verdict_of(error: UpstreamError, *, out_of_time: bool) -> Verdict:
    """Return what a call that brought no whole reply means."""
    match error:
        case UpstreamUnreachable():
            return _Unreachable(str(error))
        case UpstreamBroke():
            return _Broke(str(error))
        case UpstreamTimeout() if out_of_time:
            return _OutOfTime()
        case UpstreamTimeout():
            return replies.Faulty(ErrorType.TIMEOUT, str(error))
        case _:
            return replies.Faulty(ErrorType.API, str(error))
