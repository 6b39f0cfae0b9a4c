"""The simulated engine: continuous batching in steps, without I/O and without a clock of its own.

Each step works on prompt tokens first come, first served, and gives every running sequence one token; it takes longer
the more it does, so throughput grows with what runs. Waiting sequences take a seat in order of arrival, at the boundary
between two steps, when a seat and their blocks are free. All blocks of a sequence are taken at once (the simulator knows
how long the reply will be), so nothing is ever preempted.

The caller says what time it is. Steps in which nothing changes are passed at once, so the work is per reply and not per
token. Invariants: at most `seats` sequences are seated; a step that has begun takes no newcomer; a sequence is reported
as finished exactly once, unless it was aborted first.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from heapq import heappop, heappush

from lowtide.simulate.blocks import BlockPool
from lowtide.simulate.settings import EngineSettings


class Phase(Enum):
    """Where a sequence is."""

    WAITING = auto()
    READING = auto()
    WRITING = auto()
    DONE = auto()


@dataclass(slots=True, eq=False)
class Sequence:
    """One call inside the engine. What is above the line is the caller's, what is below the engine's."""

    hashes: tuple[int, ...]
    prompt_tokens: int
    output_tokens: int
    report_every: int = 0
    """Report each time this many tokens were written, and the first; 0: only at the end."""
    report: Callable[[], None] = lambda: None

    phase: Phase = Phase.WAITING
    arrived_ns: int = 0
    cached_tokens: int = 0
    unread_tokens: int = 0
    unnamed_blocks: int = 0
    born_step: int = 0
    written_tokens: int = 0


@dataclass(slots=True)
class Counters:
    """What the engine has done since it began, in tokens and sequences."""

    prompt_tokens: int = 0
    generation_tokens: int = 0
    prefix_queries: int = 0
    prefix_hits: int = 0
    finished: int = 0
    aborted: int = 0


@dataclass(slots=True)
class Engine:
    """Seats, a queue and blocks. Times are nanoseconds of the caller's clock, which must not go back."""

    settings: EngineSettings
    counters: Counters = field(default_factory=Counters)
    waiting: int = 0
    _pool: BlockPool = field(init=False)
    _now_ns: int = 0
    _step: int = 0
    _seated: int = 0
    _writing: int = 0
    _unread: int = 0
    _queue: deque[Sequence] = field(default_factory=deque)
    _readers: deque[Sequence] = field(default_factory=deque)
    _marks: list[tuple[int, int, Sequence]] = field(default_factory=list)
    _mark_number: int = 0

    def __post_init__(self) -> None:
        self._pool = BlockPool(self.settings.blocks)

    @property
    def running(self) -> int:
        return self._seated

    @property
    def memory_used(self) -> float:
        """The share of the blocks that running sequences hold."""
        return self._pool.used / self._pool.capacity

    def submit(self, sequence: Sequence, now_ns: int) -> None:
        """Queue a new sequence; call `advance(now_ns)` before, so that the steps until now are done."""
        if not self._seated:
            self._now_ns = max(self._now_ns, now_ns)
        sequence.arrived_ns = now_ns
        self._queue.append(sequence)
        self.waiting += 1
        self._admit()

    def abort(self, sequence: Sequence) -> None:
        """Forget a sequence whose caller is gone; nothing happens if it is done."""
        match sequence.phase:
            case Phase.DONE:
                return
            case Phase.WAITING:
                self.waiting -= 1
                sequence.phase = Phase.DONE
            case Phase.READING | Phase.WRITING:
                self._leave(sequence)
        self.counters.aborted += 1
        self._admit()

    def next_ns(self) -> int | None:
        """Return when `advance` will next have something to do, or None if the engine is idle."""
        if not self._seated:
            return None
        return self._now_ns + self._steps_alike() * self._step_ns()

    def advance(self, now_ns: int) -> list[Sequence]:
        """Take all steps that end by `now_ns`; return the sequences to report, in the order of their tokens."""
        reports: list[Sequence] = []
        while self._seated:
            step_ns = self._step_ns()
            steps = min(self._steps_alike(), (now_ns - self._now_ns) // step_ns)
            if steps <= 0:
                break
            self._take_steps(steps, step_ns)
            self._read(reports)
            self._ring(reports)
            self._admit()
        return reports

    def _step_ns(self) -> int:
        settings = self.settings
        reading = min(self._unread, settings.step_prompt_tokens_max)
        return settings.step_base_ns + self._seated * settings.step_per_sequence_ns + reading * settings.prompt_token_ns

    def _steps_alike(self) -> int:
        """Return how many steps from now will be the same, if nobody arrives."""
        self._forget_marks()
        if self._unread or self._readers or (self._queue and self._queue[0].arrived_ns > self._now_ns):
            return 1
        return self._marks[0][0] - self._step

    def _take_steps(self, steps: int, step_ns: int) -> None:
        self._now_ns += steps * step_ns
        self._step += steps
        self.counters.generation_tokens += steps * self._writing

    def _read(self, reports: list[Sequence]) -> None:
        """Work on prompts for the step just taken; whoever is through has written its first token in it."""
        room = self.settings.step_prompt_tokens_max
        while self._readers and room:
            reader = self._readers[0]
            if reader.phase is Phase.DONE:
                self._readers.popleft()
                continue
            read = min(room, reader.unread_tokens)
            room -= read
            reader.unread_tokens -= read
            self._unread -= read
            if not reader.unread_tokens:
                self._readers.popleft()
                self._begin_writing(reader, reports)

    def _begin_writing(self, sequence: Sequence, reports: list[Sequence]) -> None:
        sequence.phase = Phase.WRITING
        sequence.born_step = self._step - 1
        self._writing += 1
        if sequence.output_tokens:
            self.counters.generation_tokens += 1
        if sequence.output_tokens <= 1 or sequence.report_every:
            self._report(sequence, reports)
        else:
            self._mark(sequence, sequence.output_tokens)

    def _ring(self, reports: list[Sequence]) -> None:
        self._forget_marks()
        while self._marks and self._marks[0][0] <= self._step:
            self._report(heappop(self._marks)[2], reports)
            self._forget_marks()

    def _report(self, sequence: Sequence, reports: list[Sequence]) -> None:
        sequence.written_tokens = min(self._step - sequence.born_step, sequence.output_tokens)
        if sequence.written_tokens == sequence.output_tokens:
            self._leave(sequence)
            self.counters.finished += 1
        else:
            self._mark(sequence, min(sequence.written_tokens + sequence.report_every, sequence.output_tokens))
        reports.append(sequence)

    def _mark(self, sequence: Sequence, tokens: int) -> None:
        self._mark_number += 1  # two marks of one step compare by it, never by their sequences
        heappush(self._marks, (sequence.born_step + tokens, self._mark_number, sequence))

    def _forget_marks(self) -> None:
        while self._marks and self._marks[0][2].phase is Phase.DONE:
            heappop(self._marks)

    def _leave(self, sequence: Sequence) -> None:
        if sequence.phase is Phase.WRITING:
            self._writing -= 1
        self._unread -= sequence.unread_tokens
        self._seated -= 1
        self._pool.give_back(sequence.hashes, sequence.unnamed_blocks)
        sequence.phase = Phase.DONE

    def _admit(self) -> None:
        while self._queue and self._seated < self.settings.seats:
            head = self._queue[0]
            if head.phase is Phase.DONE:
                self._queue.popleft()
            elif head.arrived_ns > self._now_ns or not self._seat(head):
                return
            else:
                self._queue.popleft()

    def _seat(self, sequence: Sequence) -> bool:
        """Give a sequence a seat and its blocks, or return False if its blocks are not free."""
        block_tokens = self.settings.block_tokens
        # At least one token is always read: an engine needs it to write the next.
        findable = sequence.hashes[: (sequence.prompt_tokens - 1) // block_tokens]
        cached = self._pool.matching(findable) * block_tokens
        blocks = -(-(sequence.prompt_tokens + sequence.output_tokens) // block_tokens)
        unnamed = blocks - len(sequence.hashes)
        if not self._pool.take(sequence.hashes, unnamed):
            return False
        self.waiting -= 1
        self._seated += 1
        sequence.phase, sequence.cached_tokens, sequence.unnamed_blocks = Phase.READING, cached, unnamed
        sequence.unread_tokens = sequence.prompt_tokens - cached
        self._unread += sequence.unread_tokens
        self._readers.append(sequence)
        self.counters.prompt_tokens += sequence.prompt_tokens
        self.counters.prefix_queries += sequence.prompt_tokens
        self.counters.prefix_hits += cached
        return True
