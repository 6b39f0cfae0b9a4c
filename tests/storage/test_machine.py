"""Random interleavings of clients, workers, upkeep and deaths on the real driver, beside a model of a dozen lines.

Invariants: counts-add-up, n-in-n-out, one-winner, ended-is-final, billed-iff-succeeded. Workers never forget: what a
session once claimed it may try to commit for ever, as a zombie would.
"""

import asyncio
import shutil
import tempfile
from collections.abc import Awaitable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from lowtide.domain.chunks import full_bitmap
from lowtide.domain.errors import SessionPast
from lowtide.domain.outcomes import Counts, Outcome, Usage
from lowtide.domain.states import BatchState
from lowtide.domain.times import SECOND_US
from lowtide.ports.metadata import Batch, Claimed, Commit, Returned, Session
from lowtide.storage.sqlite import SqliteStore
from support.steps import WORKSPACE, SetClock, Steps, some

_T = TypeVar("_T")
WINDOW_US = 100 * SECOND_US
LEASE_S = 10.0


@dataclass
class Chunk:
    """What the model knows of a chunk: who holds it, and how each request ended, by its bit."""

    size: int
    holder: tuple[str, int] | None = None
    attempt: int = 0
    outcomes: dict[int, Outcome] = field(default_factory=dict)

    @property
    def resolved(self) -> int:
        return sum(1 << index for index in self.outcomes)

    def close(self, outcome: Outcome) -> None:
        self.holder = None
        self.outcomes = dict.fromkeys(range(self.size), outcome) | self.outcomes


@dataclass
class Model:
    """What the model knows of a batch."""

    batch: Batch
    chunks: dict[int, Chunk]
    state: BatchState = BatchState.IN_PROGRESS
    final: Batch | None = None

    def release(self, chunk: Chunk) -> None:
        chunk.holder = None
        if self.state is BatchState.CANCELING:
            chunk.close(Outcome.CANCELED)

    def settle(self) -> None:
        if all(len(chunk.outcomes) == chunk.size for chunk in self.chunks.values()):
            self.state = BatchState.ENDED

    def counts(self) -> Counts:
        ends = [outcome for chunk in self.chunks.values() for outcome in chunk.outcomes.values()]
        if self.state is not BatchState.ENDED:
            return Counts(processing=sum(chunk.size for chunk in self.chunks.values()))
        return Counts(0, *(ends.count(outcome) for outcome in Outcome))


class Lifecycle(RuleBasedStateMachine):
    """Clients, workers and upkeep, in any order."""

    migrated: ClassVar[Path]
    sessions = Bundle("sessions")
    claims = Bundle("claims")
    unanswered = Bundle("unanswered")

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.new_event_loop()
        self._directory = Path(tempfile.mkdtemp(dir=self.migrated.parent))
        shutil.copy(self.migrated, self._directory / "lowtide.db")
        self._clock = SetClock()
        self._models: dict[str, Model] = {}
        self._sessions: dict[str, int] = {}
        self._claims: list[tuple[Session, Claimed]] = []
        self._open()

    def _open(self) -> None:
        self._store = SqliteStore(self._directory / "lowtide.db", self._clock)
        self._run(self._store.open())
        self._steps = Steps(self._store, self._clock)

    def _run(self, work: Awaitable[_T]) -> _T:
        async def wait() -> _T:
            return await work

        return self._loop.run_until_complete(wait())

    def teardown(self) -> None:
        self._run(self._store.close())
        self._loop.close()
        shutil.rmtree(self._directory)

    def _chunk(self, key: int) -> tuple[Model, Chunk]:
        return next((model, model.chunks[key]) for model in self._models.values() if key in model.chunks)

    def _zombies(self) -> list[tuple[Session, Claimed]]:
        """Return the claims whose chunk is held under a newer attempt."""
        held = [(session, it, self._chunk(it.key)[1]) for session, it in self._claims]
        return [(session, it) for session, it, chunk in held if chunk.holder and chunk.attempt > it.attempt]

    def _lives(self, session: str) -> bool:
        return self._sessions.get(session, 0) > self._clock.lease

    # -- clients

    @initialize()
    def begin(self) -> None:
        self.create([3, 1])

    @precondition(lambda self: len(self._models) < 3)
    @rule(sizes=st.lists(st.sampled_from([1, 2, 5, 32]), min_size=1, max_size=2))
    def create(self, sizes: list[int]) -> None:
        batch = self._run(self._steps.batch(sizes, window_us=WINDOW_US))
        keys = self._run(self._steps.keys(batch))
        self._models[batch.id] = Model(batch, {key: Chunk(size) for key, size in zip(keys, sizes, strict=True)})

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        model = data.draw(st.sampled_from(list(self._models.values())))
        self._run(self._store.cancel_batch(WORKSPACE, model.batch.id))
        if model.state is BatchState.IN_PROGRESS:
            model.state = BatchState.CANCELING

    # -- workers

    @rule(target=sessions)
    def open_session(self) -> Session:
        session = self._run(self._store.open_session(f"worker-{len(self._sessions)}", LEASE_S))
        self._sessions[session.id] = self._clock.lease + round(LEASE_S * SECOND_US)
        return session

    @rule(session=sessions)
    def heartbeat(self, session: Session) -> None:
        held = [key for model in self._models.values() for key, it in model.chunks.items() if it.attempt]
        mine = {key for key in held if (holder := self._chunk(key)[1].holder) and holder[0] == session.id}
        if not self._lives(session.id):
            with pytest.raises(SessionPast):
                self._run(self._store.heartbeat(session.id, held))
            return
        pulse = self._run(self._store.heartbeat(session.id, held))
        self._sessions[session.id] = self._clock.lease + round(LEASE_S * SECOND_US)
        assert pulse.lost == set(held) - mine

    @rule(target=claims, session=sessions, data=st.data())
    def claim(self, session: Session, data: st.DataObject) -> Any:
        keys = [key for model in self._models.values() for key in model.chunks]
        return self._claim(session, data.draw(st.lists(st.sampled_from(keys), min_size=1, max_size=6, unique=True)))

    @rule(target=claims)
    def a_worker_starts_and_claims_all(self) -> Any:
        return self._claim(self.open_session(), [key for model in self._models.values() for key in model.chunks])

    def _claim(self, session: Session, wanted: list[int]) -> Any:
        if not self._lives(session.id):
            with pytest.raises(SessionPast):
                self._run(self._store.claim(session.id, wanted))
            return multiple()
        expected = set()
        for key in wanted:
            model, chunk = self._chunk(key)
            is_open = chunk.holder is None and len(chunk.outcomes) < chunk.size
            if is_open and model.state is BatchState.IN_PROGRESS:
                chunk.attempt += 1
                chunk.holder = (session.id, chunk.attempt)
            if chunk.holder is not None and chunk.holder[0] == session.id:
                expected.add((key, chunk.attempt, chunk.resolved))
        found = self._run(self._store.claim(session.id, wanted))
        assert {(it.key, it.attempt, it.resolved) for it in found} == expected
        self._claims += [(session, it) for it in found]
        return multiple(*((session, it) for it in found))

    @rule(
        target=unanswered, claim=claims, bits=st.integers(0, 2**32 - 1), errored=st.integers(0, 3), close=st.booleans()
    )
    def commit(self, claim: tuple[Session, Claimed], bits: int, errored: int, *, close: bool) -> Commit:
        """Commit some of a chunk, whether or not the lease still stands, and whether or not it was resolved before."""
        session, claimed = claim
        model, chunk = self._chunk(claimed.key)
        bits &= full_bitmap(claimed.size)
        errored = min(errored, bits.bit_count())
        closing = Outcome.CANCELED if close else None
        stands = chunk.holder is not None and chunk.attempt == claimed.attempt and not chunk.resolved & bits
        if close and model.state is not BatchState.CANCELING:
            stands = False
        new = self._steps.segment(session, [some(claimed, bits, errored=errored, closing=closing)])
        answer = self._run(self._store.commit(new))
        assert answer.accepted == ({claimed.key} if stands else set())
        if stands:
            indexes = [index for index in range(32) if bits >> index & 1]
            chunk.outcomes |= dict.fromkeys(indexes[:errored], Outcome.ERRORED)
            chunk.outcomes |= dict.fromkeys(indexes[errored:], Outcome.SUCCEEDED)
            if close:
                chunk.close(Outcome.CANCELED)
            if len(chunk.outcomes) == chunk.size:
                chunk.holder = None
            model.settle()
            assert answer.ended == ([model.batch.id] if model.state is BatchState.ENDED else [])
        return new

    @precondition(lambda self: self._zombies())
    @rule(data=st.data())
    def a_zombie_commits(self, data: st.DataObject) -> None:
        session, claimed = data.draw(st.sampled_from(self._zombies()))
        free = full_bitmap(claimed.size) & ~self._chunk(claimed.key)[1].resolved
        assert self._run(self._steps.commit(session, [some(claimed, free & -free)])).refused == {claimed.key}

    @rule(new=unanswered)
    def repeat_a_commit_whose_answer_was_lost(self, new: Commit) -> None:
        """It finds itself if it stood; else it is judged again, and an empty part may stand by now."""
        if all(part.bits for part in new.parts):
            before = [self._run(self._steps.row(part.chunk)) for part in new.parts]
            stood = self._run(self._store.blocks(WORKSPACE, self._chunk(new.parts[0].chunk)[0].batch.id, None, 10**6))
            if any(block.key == new.segment_key for block in stood):
                self._run(self._store.commit(new))
                assert [self._run(self._steps.row(part.chunk)) for part in new.parts] == before

    @rule(claim=claims, lost=st.booleans())
    def give_back(self, claim: tuple[Session, Claimed], *, lost: bool) -> None:
        session, claimed = claim
        model, chunk = self._chunk(claimed.key)
        self._run(self._store.give_back(session.id, [Returned(claimed.key, claimed.attempt, lost=lost)]))
        if chunk.holder == (session.id, claimed.attempt):
            model.release(chunk)
            model.settle()

    # -- upkeep and deaths

    @precondition(lambda self: any(self._lives(session) for session in self._sessions))
    @rule(data=st.data())
    def a_worker_dies(self, data: st.DataObject) -> None:
        dead = data.draw(st.sampled_from([session for session in self._sessions if self._lives(session)]))
        self._run(self._store.release_worker(f"worker-{list(self._sessions).index(dead)}"))
        self._bury({dead})

    @rule(seconds=st.sampled_from([1.0, 6.0, 11.0]))
    def pass_time(self, seconds: float) -> None:
        self._clock.pass_lease(seconds)
        self._clock.pass_wall(round(seconds * SECOND_US))

    @rule()
    def reap(self) -> None:
        self._run(self._store.reap())
        self._bury({session for session in self._sessions if not self._lives(session)})

    def _bury(self, past: set[str]) -> None:
        self._sessions |= dict.fromkeys(past, 0)
        for model in self._models.values():
            for chunk in model.chunks.values():
                if chunk.holder is not None and chunk.holder[0] in past:
                    model.release(chunk)
            model.settle()

    @rule()
    def the_machine_boots(self) -> None:
        self._run(self._store.close())
        self._clock.boot += "+"
        self._sessions = dict.fromkeys(self._sessions, 0)
        self._open()

    @rule(limit=st.integers(1, 3))
    def close_canceling(self, limit: int) -> None:
        while self._run(self._store.close_canceling(limit)):
            pass
        for model in self._models.values():
            if model.state is BatchState.CANCELING:
                for chunk in model.chunks.values():
                    if chunk.holder is None:
                        chunk.close(Outcome.CANCELED)
                model.settle()

    @rule()
    def expire(self) -> None:
        self._run(self._store.expire(100))
        for model in self._models.values():
            if model.state is not BatchState.ENDED and model.batch.expires_us <= self._clock.wall:
                outcome = Outcome.CANCELED if model.state is BatchState.CANCELING else Outcome.EXPIRED
                for chunk in model.chunks.values():
                    if len(chunk.outcomes) < chunk.size:
                        chunk.attempt += 1
                        chunk.close(outcome)
                model.settle()

    @rule()
    def end_check(self) -> None:
        assert self._run(self._store.end_check()) == 0

    # -- what always holds

    @invariant()
    def the_database_says_what_the_model_says(self) -> None:
        for model in self._models.values():
            batch = self._run(self._steps.get(model.batch))
            assert (batch.state, batch.counts) == (model.state, model.counts())
            assert batch.counts.total == sum(chunk.size for chunk in model.chunks.values())
            if model.state is BatchState.ENDED:
                model.final = model.final or batch
                assert batch == model.final
                succeeded = batch.counts.succeeded
                assert batch.usage == Usage(*(each * succeeded for each in (3, 5, 7, 11)))

    @invariant()
    def an_ended_batch_has_one_result_for_each_request(self) -> None:
        for model in self._models.values():
            if model.state is BatchState.ENDED:
                blocks = self._run(self._store.blocks(WORKSPACE, model.batch.id, None, 10**6))
                closings = self._run(self._store.closings(WORKSPACE, model.batch.id, 0, 10**6))
                lines = sum(length for block in blocks for _, length in block.pieces) // 10
                derived = sum(closing.size - closing.resolved.bit_count() for closing in closings)
                assert lines + derived == model.counts().total


def test_no_interleaving_breaks_an_invariant(migrated: Path) -> None:
    Lifecycle.migrated = migrated
    run_state_machine_as_test(
        Lifecycle,
        settings=settings(
            max_examples=20,
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
