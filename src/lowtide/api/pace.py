"""How fast a batch moves, and when it will be done: what is known from its last commits, and nothing else.

The rate is that of the last minute, or of the last ten where a minute saw too little (slow models bring a result now
and then). Where nothing came in, nothing is known but that it is slow: a rate of 0 and no estimate.
"""

from collections.abc import Sequence
from itertools import takewhile
from typing import Final

from lowtide.domain.times import MINUTE_US, SECOND_US
from lowtide.ports.live import Advance

WINDOWS_US: Final = (MINUTE_US, 10 * MINUTE_US)
KNOWN_AFTER_US: Final = 2 * SECOND_US
"""A shorter stretch says too little: the first results come together."""


def rate_per_s(recent: Sequence[Advance], since_us: int, now_us: int) -> float | None:
    """Return results per second lately, or None while nothing can be said.

    `recent` are the commits, newest first; `since_us` is when the batch was created. The results of the oldest commit
    do not count: they were made before the stretch that begins with it.
    """
    for window_us in WINDOWS_US:
        within = list(takewhile(lambda each: each.at_us > now_us - window_us, recent))  # noqa: B023 used at once
        if len(within) > 1 and (span_us := now_us - within[-1].at_us) >= KNOWN_AFTER_US:
            return sum(each.results for each in within[:-1]) * SECOND_US / span_us
    return 0.0 if not recent and now_us - since_us > WINDOWS_US[0] else None


def eta_s(processing: int, rate: float | None) -> float | None:
    """Return the seconds until the last result at this rate, or None where none can be named."""
    if processing == 0:
        return 0.0
    return processing / rate if rate else None
