"""The one table of states: every transition of a batch and of a chunk, its cause, and who may cause it.

`docs/states.md` is generated from this table, the property tests walk it, and the storage statements implement it.
A pair of state and event that is not in the table changes nothing. Invariants: ended-is-final, one-winner.
"""

from dataclasses import dataclass
from enum import StrEnum


class BatchState(StrEnum):
    """Where a batch stands. The wire knows only the first three; the others follow `ended`."""

    IN_PROGRESS = "in_progress"
    CANCELING = "canceling"
    ENDED = "ended"
    ARCHIVED = "archived"
    DELETED = "deleted"


class BatchEvent(StrEnum):
    """What may happen to a batch."""

    CANCEL = "cancel"
    LAST_CHUNK_CLOSED = "last chunk closed"
    EXPIRE = "expire"
    RETIRE = "retire"
    DELETE = "delete"


class ChunkState(StrEnum):
    """Where a chunk stands: to be claimed, held by a session, or done for good."""

    OPEN = "open"
    LEASED = "leased"
    CLOSED = "closed"


class ChunkEvent(StrEnum):
    """What may happen to a chunk."""

    CLAIM = "claim"
    COMMIT_SOME = "commit, some outstanding"
    COMMIT_LAST = "commit, none outstanding"
    GIVE_BACK = "give back"
    REAP = "reap"
    CLOSE = "close"
    EXPIRE = "expire"


class Actor(StrEnum):
    """Who may cause a transition."""

    CLIENT = "client"
    WORKER = "worker"
    UPKEEP = "upkeep"


@dataclass(frozen=True, slots=True)
class BatchTransition:
    """A batch in `state` goes to `next` when `actor` causes `event`."""

    state: BatchState
    event: BatchEvent
    actor: Actor
    next: BatchState
    note: str = ""


@dataclass(frozen=True, slots=True)
class ChunkTransition:
    """A chunk in `state`, of a batch in `batch`, goes to `next` when `actor` causes `event`."""

    batch: BatchState
    state: ChunkState
    event: ChunkEvent
    actor: Actor
    next: ChunkState
    note: str = ""


_B, _C, _E, _F, _A = BatchState, ChunkState, BatchEvent, ChunkEvent, Actor

BATCH_TRANSITIONS: tuple[BatchTransition, ...] = (
    BatchTransition(_B.IN_PROGRESS, _E.CANCEL, _A.CLIENT, _B.CANCELING, "marks only; counts unchanged"),
    BatchTransition(_B.CANCELING, _E.CANCEL, _A.CLIENT, _B.CANCELING, "answered 200, nothing moves"),
    BatchTransition(_B.ENDED, _E.CANCEL, _A.CLIENT, _B.ENDED, "answered 200, nothing moves"),
    BatchTransition(_B.ARCHIVED, _E.CANCEL, _A.CLIENT, _B.ARCHIVED, "answered 200, nothing moves"),
    BatchTransition(_B.IN_PROGRESS, _E.LAST_CHUNK_CLOSED, _A.WORKER, _B.ENDED, "in the transaction that closes it"),
    BatchTransition(_B.CANCELING, _E.LAST_CHUNK_CLOSED, _A.WORKER, _B.ENDED, "in the transaction that closes it"),
    BatchTransition(_B.IN_PROGRESS, _E.EXPIRE, _A.UPKEEP, _B.ENDED, "unresolved requests become expired"),
    BatchTransition(_B.CANCELING, _E.EXPIRE, _A.UPKEEP, _B.ENDED, "unresolved requests become canceled"),
    BatchTransition(_B.ENDED, _E.RETIRE, _A.UPKEEP, _B.ARCHIVED, "results go, the batch stays to be seen"),
    BatchTransition(_B.ENDED, _E.DELETE, _A.CLIENT, _B.DELETED, "404 at once; objects go an hour later"),
    BatchTransition(_B.ARCHIVED, _E.DELETE, _A.CLIENT, _B.DELETED, "404 at once"),
)

_RUNNING = (_B.IN_PROGRESS, _B.CANCELING)

CHUNK_TRANSITIONS: tuple[ChunkTransition, ...] = (
    ChunkTransition(_B.IN_PROGRESS, _C.OPEN, _F.CLAIM, _A.WORKER, _C.LEASED, "attempt + 1"),
    *(
        ChunkTransition(batch, _C.LEASED, _F.COMMIT_SOME, _A.WORKER, _C.LEASED, "guarded by attempt and state")
        for batch in _RUNNING
    ),
    *(
        ChunkTransition(batch, _C.LEASED, _F.COMMIT_LAST, _A.WORKER, _C.CLOSED, "guarded by attempt and state")
        for batch in _RUNNING
    ),
    ChunkTransition(_B.IN_PROGRESS, _C.LEASED, _F.GIVE_BACK, _A.WORKER, _C.OPEN, "without a loss"),
    ChunkTransition(_B.CANCELING, _C.LEASED, _F.GIVE_BACK, _A.WORKER, _C.CLOSED, "the rest become canceled"),
    ChunkTransition(_B.IN_PROGRESS, _C.LEASED, _F.REAP, _A.UPKEEP, _C.OPEN, "a loss, unless it progressed"),
    ChunkTransition(_B.CANCELING, _C.LEASED, _F.REAP, _A.UPKEEP, _C.CLOSED, "the rest become canceled"),
    ChunkTransition(_B.CANCELING, _C.OPEN, _F.CLOSE, _A.UPKEEP, _C.CLOSED, "the rest become canceled"),
    ChunkTransition(_B.CANCELING, _C.LEASED, _F.CLOSE, _A.WORKER, _C.CLOSED, "once what was sent has finished"),
    ChunkTransition(_B.IN_PROGRESS, _C.LEASED, _F.CLOSE, _A.WORKER, _C.CLOSED, "errored as a whole"),
    *(
        ChunkTransition(batch, state, _F.EXPIRE, _A.UPKEEP, _C.CLOSED, f"attempt + 1; the rest become {rest}")
        for batch, rest in ((_B.IN_PROGRESS, "expired"), (_B.CANCELING, "canceled"))
        for state in (_C.OPEN, _C.LEASED)
    ),
)
"""Claims stop at once when a batch is canceling; an ended batch has only closed chunks, and those never move."""


def next_batch_state(state: BatchState, event: BatchEvent) -> BatchState | None:
    """Return where `event` takes a batch, or None where the table has no such cell."""
    return next((t.next for t in BATCH_TRANSITIONS if (t.state, t.event) == (state, event)), None)


def next_chunk_state(batch: BatchState, state: ChunkState, event: ChunkEvent) -> ChunkState | None:
    """Return where `event` takes a chunk of a batch in that state, or None where the table has no such cell."""
    found = (t.next for t in CHUNK_TRANSITIONS if (t.batch, t.state, t.event) == (batch, state, event))
    return next(found, None)
