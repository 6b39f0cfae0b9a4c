"""The calls that a workspace may make, counted in this process's memory.

A bucket holds as many calls as a minute has and fills evenly. It forgets nothing that matters when the process ends: a
new one begins full. Several API processes each count for themselves; sharing a count is another `CallBudget`.
"""

import time
from collections.abc import Callable

from lowtide.ports.access import Taken

_MINUTE_S = 60.0


class Buckets:
    """A bucket for each workspace that has a limit. `now_s` is a monotonic clock."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._left: dict[str, tuple[float, float]] = {}

    async def take(self, workspace: str, per_minute: int) -> Taken:
        """Take one call of `per_minute`, which is at least 1; a limit that changes counts from the next call on."""
        now_s, rate = self._now_s(), per_minute / _MINUTE_S
        left, at_s = self._left.get(workspace, (float(per_minute), now_s))
        left = min(float(per_minute), left + (now_s - at_s) * rate)
        granted = left >= 1
        left -= granted
        self._left[workspace] = (left, now_s)
        wait_s = max(0.0, 1 - left) / rate
        return Taken(granted, per_minute, int(left), wait_s, (per_minute - left) / rate)
