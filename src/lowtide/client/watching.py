"""A batch as it goes on, until it has ended: told by the server's events if it has them, else asked for.

A server that does not answer for a while is waited for: it may be restarting, and the batch survives that. Polling asks
no sooner than the server wishes (`retry-after` of a batch in progress).
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from lowtide.client.api import Api, is_missing
from lowtide.client.errors import BrokenOff, ClientError, Refused, Unreachable
from lowtide.client.events import event_data
from lowtide.client.pauses import pause_s
from lowtide.client.shapes import Found, Live, found

POLL_S, POLL_MIN_S = 10.0, 0.2
LOST_S = 600.0
"""After so long without any answer a watch gives up."""


class TimedOut(ClientError):
    """The batch has not ended in the time that was given."""


@dataclass(frozen=True, slots=True)
class Deadline:
    """When to give up watching, on the monotonic clock; None for never."""

    at_s: float | None

    @classmethod
    def within(cls, seconds: float | None) -> "Deadline":
        return cls(None if seconds is None else time.monotonic() + seconds)

    def left_s(self) -> float | None:
        """Return what is left; raises TimedOut when nothing is."""
        if self.at_s is None:
            return None
        left = self.at_s - time.monotonic()
        if left <= 0:
            raise TimedOut("The batch has not ended in the time given; it goes on.")
        return left

    def sleep(self, seconds: float) -> None:
        """Sleep, but not beyond the deadline; raises TimedOut there."""
        left = self.left_s()
        time.sleep(seconds if left is None else min(seconds, left))
        self.left_s()


def states(api: Api, batch_id: str, deadline: Deadline) -> Iterator[Found]:
    """Yield a batch each time something is heard of it; the last one has ended and is as the contract has it.

    Raises TimedOut, and what the server says of an unknown batch.
    """
    now, wait_s = api.batch(batch_id)
    has_events, silent_since, tries = True, time.monotonic(), 0
    while not now.batch.has_ended:
        if not has_events:
            yield now
            deadline.sleep(max(POLL_MIN_S, POLL_S if wait_s is None else wait_s))
        try:
            if has_events:
                for state in _told(api, batch_id, deadline):
                    silent_since, tries = time.monotonic(), 0
                    yield state
            now, wait_s = api.batch(batch_id)
            silent_since = time.monotonic()
        except Refused as error:
            if not has_events or not is_missing(error):
                raise
            has_events = False
        except (BrokenOff, Unreachable) as error:
            deadline.left_s()
            if time.monotonic() - silent_since > LOST_S:
                raise
            tries += 1
            api.say(f"{error} Trying again in {pause_s(tries):.3g} s.")
            deadline.sleep(pause_s(tries))
    yield now


def _told(api: Api, batch_id: str, deadline: Deadline) -> Iterator[Found]:
    """Yield what the server's events say, until one says that the batch has ended or the stream is over."""
    left = deadline.left_s()
    server = api.server if left is None else replace(api.server, idle_s=min(api.server.idle_s, left))
    with Api(server, api.say).events(batch_id) as answer:
        for _, data in event_data(_in_time(answer.lines(), deadline)):
            state = found(data, Live)
            if state.batch.has_ended:
                return
            yield state


def _in_time(lines: Iterator[bytes], deadline: Deadline) -> Iterator[bytes]:
    for line in lines:
        deadline.left_s()
        yield line
