"""What a worker knows of its own work, told with each heartbeat: its upstreams, its trouble, and its counters' growth.

Belongs to the worker process, not to a session: what one session could not tell any more the next one does. On the way
of a request it costs an addition or two. A report whose answer was lost is told again under its number, with the growth
it had, so that nothing is counted twice. Labels are names of the configuration or of the code, never a client's.
"""

import asyncio
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Final, assert_never

from lowtide.dispatch.circuit import Trouble
from lowtide.dispatch.hold import Hold
from lowtide.dispatch.lanes import Lane, Lanes
from lowtide.domain.outcomes import Outcome, Usage
from lowtide.ports.metadata import Committed, Part
from lowtide.ports.report import RESULTS, Count, LaneReport, Report, UpstreamTrouble

TRIES, TRY_US, RETRIES, TOKENS = "tries", "try_us", "retries", "tokens"
COMMITS, COMMIT_US, REFUSED_PARTS, REFUSED_RESULTS = "commits", "commit_us", "refused_parts", "refused_results"
COMMIT_BOUNDS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""`commits` is counted by the first of these that a commit did not pass, or "+Inf"."""
TEXT_CHARS_MAX: Final = 300


class Reporter:
    """Collects what a worker tells. `news` is set when the next heartbeat should not wait for its time."""

    def __init__(self) -> None:
        self.news = asyncio.Event()
        self._grown: Counter[tuple[str, tuple[str, ...]]] = Counter()
        self._tries: Counter[tuple[str, str]] = Counter()
        self._try_s: defaultdict[str, float] = defaultdict(float)
        self._retries = 0
        self._said: dict[str, str] = {}
        self._store_trouble: str | None = None
        self._number = 0
        self._untold: Sequence[Count] | None = None

    # ------------------------------------------------------------------------------------------ what happens

    def tried(self, upstream: str, answer: str, took_s: float) -> None:
        """Count a try that is over, by what came of it."""
        self._tries[upstream, answer] += 1
        self._try_s[upstream] += took_s

    def retried(self) -> None:
        """Count a request that is to be tried again."""
        self._retries += 1

    def trouble(self, upstream: str, reason: str) -> None:
        """Note what an upstream that just fell into trouble said."""
        self._said[upstream] = reason[:TEXT_CHARS_MAX]
        self.news.set()

    def recovered(self) -> None:
        """Note that an upstream came out of its trouble."""
        self.news.set()

    def store_failed(self, error: Exception) -> None:
        """Note that results cannot be stored, for now."""
        self._store_trouble = type(error).__name__
        self.news.set()

    def committed(
        self, parts: Iterable[Part], holds: Iterable[tuple[Hold, int]], committed: Committed, took_s: float
    ) -> None:
        """Count a commit; `holds` come with how many results of each were in it."""
        self._store_trouble = None
        bound = bisect_left(COMMIT_BOUNDS_S, took_s)
        label = str(COMMIT_BOUNDS_S[bound]) if bound < len(COMMIT_BOUNDS_S) else "+Inf"
        self._grown[COMMITS, (label,)] += 1
        self._grown[COMMIT_US, ()] += round(took_s * 1_000_000)
        self._grown[REFUSED_PARTS, ()] += len(committed.refused)
        usage = Usage()
        for part in parts:
            if part.chunk in committed.accepted:
                self._grown[RESULTS, (Outcome.SUCCEEDED.value,)] += part.succeeded
                self._grown[RESULTS, (Outcome.ERRORED.value,)] += part.errored
                usage += part.usage
        for hold, results in holds:
            if hold.key in committed.refused:
                self._grown[REFUSED_RESULTS, ()] += results
            elif hold.closing is Outcome.ERRORED:
                self._grown[RESULTS, (Outcome.ERRORED.value,)] += hold.claimed.size - hold.done.bit_count()
        self._grown[TOKENS, ("input",)] += usage.input_tokens
        self._grown[TOKENS, ("output",)] += usage.output_tokens
        self._grown[TOKENS, ("cache_creation_input",)] += usage.cache_creation_input_tokens
        self._grown[TOKENS, ("cache_read_input",)] += usage.cache_read_input_tokens

    # ------------------------------------------------------------------------------------------ what is told

    def report(self, lanes: Lanes) -> Report:
        """Return what to tell now; until `told`, the growth in it stays the same."""
        if self._untold is None:
            self._number += 1
            self._untold = self._take()
        return Report(
            number=self._number,
            lanes=[self._lane(lane) for lane in lanes.all.values()],
            put_aside=lanes.put_aside,
            store_trouble=self._store_trouble,
            added=self._untold,
        )

    def told(self) -> None:
        """The last report is stored."""
        self._untold = None

    def _take(self) -> Sequence[Count]:
        grown, self._grown = self._grown, Counter()
        tries, self._tries = self._tries, Counter()
        try_s, self._try_s = self._try_s, defaultdict(float)
        grown[RETRIES, ()], self._retries = self._retries, 0
        for (upstream, answer), count in tries.items():
            grown[TRIES, (upstream, answer)] = count
        for upstream, seconds in try_s.items():
            grown[TRY_US, (upstream,)] = round(seconds * 1_000_000)
        return [Count(name, labels, value) for (name, labels), value in grown.items() if value]

    def _lane(self, lane: Lane) -> LaneReport:
        trouble = _told(lane.circuit.trouble)
        text = "" if trouble is None else self._said.get(lane.name, "")
        return LaneReport(lane.name, lane.gate.in_flight, lane.gate.limit, trouble, text)


def _told(trouble: Trouble | None) -> UpstreamTrouble | None:
    match trouble:
        case None:
            return None
        case Trouble.UNREACHABLE | Trouble.WENT_DOWN:
            return UpstreamTrouble.DOWN
        case Trouble.REFUSES_US:
            return UpstreamTrouble.REFUSES_US
        case Trouble.NO_ENDPOINT:
            return UpstreamTrouble.NO_ENDPOINT
        case _:
            assert_never(trouble)
