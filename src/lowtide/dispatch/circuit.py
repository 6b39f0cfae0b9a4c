"""The circuit breaker of one upstream: while it is open, requests wait; they do not fail and use up no tries.

It opens when the upstream cannot be reached, refuses our credential, has no Messages endpoint, or went down with all
that was in flight. After a wait it lets a single try through; a whole reply closes it, another failure doubles the wait.
"""

from dataclasses import dataclass
from enum import StrEnum


class Trouble(StrEnum):
    """Why a circuit is open."""

    UNREACHABLE = "unreachable"
    WENT_DOWN = "went down"
    REFUSES_US = "refuses our credential"
    NO_ENDPOINT = "has no /v1/messages"


@dataclass
class Circuit:
    """Closed while `trouble` is None. Times are monotonic seconds, handed in."""

    wait_s: float
    wait_max_s: float
    trouble: Trouble | None = None
    _next_wait_s: float = 0.0
    _probe_at_s: float = 0.0
    probing: bool = False
    """The one try that an open circuit lets through is on its way."""

    def lets_through(self, now_s: float) -> bool:
        """Tell whether a try may start: always when closed, one at a time and only when due while open."""
        return self.trouble is None or (not self.probing and now_s >= self._probe_at_s)

    def started(self) -> bool:
        """A try has been let through; returns whether it is the probe of an open circuit."""
        self.probing = self.trouble is not None
        return self.probing

    def gave_up(self) -> None:
        """The probe was aborted by us: it says nothing."""
        self.probing = False

    def whole_reply(self) -> bool:
        """A whole reply came, of the probe or of an older try; returns whether that closed the circuit."""
        closed = self.trouble is not None
        self.trouble, self.probing, self._next_wait_s = None, False, 0.0
        return closed

    def fail(self, trouble: Trouble, now_s: float, *, probe: bool) -> bool:
        """The upstream is in trouble; returns whether that is news.

        Failures of tries that started before the circuit opened say nothing new and do not lengthen the wait.
        """
        news = self.trouble is None
        if news or probe:
            self._next_wait_s = min(max(self.wait_s, self._next_wait_s * 2), self.wait_max_s)
            self._probe_at_s = now_s + self._next_wait_s
            self.trouble, self.probing = trouble, False
        return news

    def wait_left_s(self, now_s: float) -> float:
        """Return how long until a try may be let through: 0 when it may now."""
        return 0.0 if self.trouble is None else max(0.0, self._probe_at_s - now_s)
