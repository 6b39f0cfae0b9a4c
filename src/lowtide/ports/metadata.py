"""The port of the metadata store: batches, chunks, sessions, segments and the operations that move them.

Each operation is one transaction (or one read) and keeps the rules by itself: guards, lock order, the one end
of a batch. The workspace is an argument wherever a client's call leads here; workers and upkeep act for all
workspaces. Offsets and lengths are in bytes. Wall times are microseconds since 1970 (`…_us`), given by the driver's clock unless an argument says otherwise.
Every operation may raise StoreUnavailable, after which it may be repeated as it was.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from lowtide.domain.outcomes import Counts, Outcome, Usage
from lowtide.domain.states import BatchState
from lowtide.ports.report import Report

# ---------------------------------------------------------------------------------------------- batches


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch as its row says. `counts` are all `processing` until it has ended (the documented rule)."""

    id: str
    workspace: str
    state: BatchState
    counts: Counts
    created_us: int
    expires_us: int
    ended_us: int | None
    archived_us: int | None
    cancel_initiated_us: int | None
    request_key: str
    usage: Usage


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a listing, newest first; `has_more` speaks of the direction that was asked for."""

    batches: Sequence[Batch]
    has_more: bool


# ---------------------------------------------------------------------------------------------- intake


@dataclass(frozen=True, slots=True)
class NewChunk:
    """A planned chunk: where it stands in the requests object, and what it holds. At most 32 requests."""

    group: int
    model: str
    offset: int
    length: int
    head_length: int
    head_checksum: int
    size: int


@dataclass(frozen=True, slots=True)
class Creation:
    """What tells a create from its own retry (`docs/semantics.md`, "Create").

    `credential` and `body_digest` are digests; `retry_count` is the SDK's `x-stainless-retry-count`, 0 when absent.
    """

    credential: str
    body_digest: str
    retry_count: int
    idempotency_key: str | None


@dataclass(frozen=True, slots=True)
class NewBatch:
    """A batch to be stored. `headers` go with each of its requests to the upstream.

    `models` are the patterns of the models that its requests may use, none for all: whether one may is judged when it
    runs.
    """

    id: str
    workspace: str
    upload: str
    request_key: str
    headers: Mapping[str, str]
    window_us: int
    queued_requests_max: int
    creation: Creation
    models: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Created:
    """The batch that a create leads to; `made` is False when it is an earlier one, met again."""

    batch: Batch
    made: bool


# ---------------------------------------------------------------------------------------------- dispatch


MERGER = "upkeep.merge"
"""The name that a merge's session has in place of a worker's: it runs no requests and is no worker."""


@dataclass(frozen=True, slots=True)
class Session:
    """One life of one worker process. A lease lasts `lease_s` from the last heartbeat, by the store's clock."""

    id: str
    lease_s: float


@dataclass(frozen=True, slots=True)
class Backlog:
    """A batch with open chunks, as a worker's choice needs it. `suspects` counts the open chunks past LOSSES_MAX."""

    batch_id: str
    workspace: str
    batch_key: int
    created_us: int
    expires_us: int
    open: int
    suspects: int


@dataclass(frozen=True, slots=True)
class OpenChunk:
    """An open chunk, as a worker's choice needs it. Keys grow in the order of the plan."""

    key: int
    batch_key: int
    group: int
    model: str
    outstanding: int
    losses: int
    length: int


@dataclass(frozen=True, slots=True)
class Claimed:
    """A chunk that this session holds, with all a worker needs to run it.

    `attempt` is the fencing token. `resolved` is the bitmap of requests that have a result; `condemned` those that
    twice lost their worker while alone: they are errored, never sent. `tries` has one byte per request, or is empty.
    """

    key: int
    attempt: int
    batch_key: int
    batch_id: str
    workspace: str
    group: int
    model: str
    headers: Mapping[str, str]
    request_key: str
    offset: int
    length: int
    head_length: int
    head_checksum: int
    size: int
    resolved: int
    condemned: int
    losses: int
    tries: bytes
    expires_us: int
    models: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """What one chunk adds to a segment: new bits, where their lines stand, and their usage.

    `closing` closes the rest of the chunk with an outcome (CANCELED while its batch is canceling; ERRORED with
    `closing_error`). A part may be empty of bits when it only closes or only records `tries`.
    """

    chunk: int
    attempt: int
    batch_key: int
    offset: int
    length: int
    bits: int
    succeeded: int
    errored: int
    usage: Usage
    tries: bytes = b""
    closing: Outcome | None = None
    closing_error: bytes | None = None


@dataclass(frozen=True, slots=True)
class Block:
    """A contiguous range of a segment, all of one batch, at most about 1 MiB: the unit that readers verify."""

    batch_key: int
    offset: int
    length: int
    lines: int
    checksum: int


@dataclass(frozen=True, slots=True)
class Commit:
    """One segment's worth of results. (session, number) is unique: a repeat after a lost answer finds itself."""

    session: str
    number: int
    segment_key: str
    segment_length: int
    blocks: Sequence[Block]
    parts: Sequence[Part]


@dataclass(frozen=True, slots=True)
class Committed:
    """What became of a commit: the chunks whose part stands, those refused (the lease is lost), and batches ended."""

    accepted: frozenset[int]
    refused: frozenset[int]
    ended: Sequence[str]


@dataclass(frozen=True, slots=True)
class Pulse:
    """What a heartbeat tells a holder: chunks it no longer holds, and batches of its chunks that are canceling.

    `strays` are chunks that it holds without saying so, with their attempts: heartbeats would keep them for ever.
    """

    lost: frozenset[int]
    canceling: frozenset[int]
    strays: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Returned:
    """A chunk given back. `lost` counts a loss if the chunk made no progress in this attempt (its upstream died)."""

    chunk: int
    attempt: int
    tries: bytes = b""
    lost: bool = False


# ---------------------------------------------------------------------------------------------- results


@dataclass(frozen=True, slots=True)
class StoredBlock:
    """A block of a batch's results. `pieces` are the ranges to send, relative to the block.

    They are the whole block unless the commit refused a part in it. `lines` counts those of the whole block.
    `generation`, `place`, `segment` and `offset` say where the next page goes on.
    """

    generation: int
    place: int
    segment: int
    key: str
    offset: int
    length: int
    checksum: int
    pieces: Sequence[tuple[int, int]]
    lines: int


@dataclass(frozen=True, slots=True)
class Closing:
    """A chunk whose unresolved requests ended together: their lines are derived from its head."""

    chunk: int
    offset: int
    head_length: int
    head_checksum: int
    size: int
    resolved: int
    outcome: Outcome
    error: bytes | None


# ---------------------------------------------------------------------------------------------- upkeep


@dataclass(frozen=True, slots=True)
class Reaped:
    """What one reaping did."""

    sessions: int
    reopened: int
    losses: int
    closed: int


@dataclass(frozen=True, slots=True)
class Unmerged:
    """A batch that has ended, and the blocks of its results that no merge wrote: how many, how long, and the first."""

    batch_key: int
    batch_id: str
    generation: int
    count: int
    length: int
    blocks: Sequence[StoredBlock]


@dataclass(frozen=True, slots=True)
class Merge:
    """The first unmerged blocks of a batch, written anew as one segment: the same lines in the same order.

    `generation` is that of the Unmerged it was made from. `done` says that what is left is not worth a merge; a merge
    that takes no blocks says only that.
    """

    session: str
    number: int
    segment_key: str
    segment_length: int
    batch_key: int
    generation: int
    taken: Sequence[StoredBlock]
    blocks: Sequence[Block]
    done: bool


@dataclass(frozen=True, slots=True)
class Doomed:
    """An object that rows prove dead. Forget it once it is deleted."""

    key: str


class MetadataStore(Protocol):
    """The database behind Lowtide."""

    # -- life
    async def open(self) -> None: ...
    async def close(self) -> None: ...

    async def check(self) -> None:
        """Return when the database answers and its schema is the one this code knows; raise StoreUnavailable."""
        ...

    async def changed(self, timeout_s: float) -> None:
        """Return when something may have been written by another process, or after `timeout_s`."""
        ...

    # -- intake
    async def begin_upload(self, workspace: str, upload: str, request_key: str) -> None:
        """Write down that an object is about to be put, before it is."""
        ...

    async def abandon_upload(self, workspace: str, upload: str) -> None:
        """Say that this upload will never become a batch, so that upkeep may take its object soon."""
        ...

    async def find_creation(self, workspace: str, creation: Creation) -> Batch | None:
        """Return the batch that this create is a retry of, noting that this retry found it; raises KeyReused.

        Writes nothing when there is none.
        """
        ...

    async def create_batch(self, batch: NewBatch, chunks: Sequence[NewChunk]) -> Created:
        """Store a batch and its chunks and remove its upload's row; or find the batch that this create repeats.

        Raises UploadGone, KeyReused, and RateLimited when `queued_requests_max` (if not 0) would be passed.
        """
        ...

    # -- doors
    async def get_batch(self, workspace: str, batch_id: str) -> Batch | None:
        """Return a batch, or None for an unknown, deleted or foreign id."""
        ...

    async def list_batches(
        self, workspace: str, limit: int, before_id: str | None = None, after_id: str | None = None
    ) -> Page:
        """Return up to `limit` batches, newest first: all, those newer than `before_id`, or older than `after_id`.

        An unknown cursor gives an empty page.
        """
        ...

    async def name_batch(self, workspace: str, batch_id: str, credential: str) -> None:
        """Note that this credential named a young batch, so that no later create of its is taken for a retry.

        Writes at most once per batch, and nothing once the batch is older than an hour.
        """
        ...

    async def cancel_batch(self, workspace: str, batch_id: str) -> Batch | None:
        """Mark a batch canceling if it is in progress, and return it as it now is; None for an unknown id."""
        ...

    async def delete_batch(self, workspace: str, batch_id: str) -> Batch | None:
        """Delete a batch that has ended and return it as it was; a batch that runs is returned untouched."""
        ...

    # -- dispatch
    async def open_session(self, worker: str, lease_s: float) -> Session:
        """Begin a session of the worker process named `worker`."""
        ...

    async def heartbeat(self, session: str, held: Sequence[int], report: Report | None = None) -> Pulse:
        """Renew every lease of a session; `held` are the chunks it believes it holds. Raises SessionPast.

        A report is kept in the same transaction; one that was kept already is not counted again.
        """
        ...

    async def end_session(self, session: str, report: Report | None = None) -> None:
        """Make a session past and reopen what it still holds, without a loss; its last report is kept."""
        ...

    async def backlogs(self) -> Sequence[Backlog]:
        """Return the batches in progress that have open chunks, oldest first."""
        ...

    async def open_chunks(
        self, batch_key: int, after: int, limit: int, *, suspects: bool = False
    ) -> Sequence[OpenChunk]:
        """Return open chunks of a batch with a key above `after`, in plan order: the suspects, or the others."""
        ...

    async def claim(self, session: str, chunks: Sequence[int]) -> Sequence[Claimed]:
        """Lease those of `chunks` that are still open and whose batch is in progress. Raises SessionPast.

        Those that the session holds already are returned as they are: a claim whose answer was lost is repeated.
        """
        ...

    async def give_back(self, session: str, chunks: Sequence[Returned]) -> None:
        """Reopen chunks that this session holds under these attempts; those of a canceling batch are closed."""
        ...

    async def commit(self, commit: Commit) -> Committed:
        """Record a segment: each part under the guard of its chunk's attempt and state, and end what is complete."""
        ...

    # -- results
    async def blocks(
        self, workspace: str, batch_id: str, after: StoredBlock | None, limit: int
    ) -> Sequence[StoredBlock]:
        """Return blocks of a batch's results in their fixed order: the first ones, or those behind `after`.

        Raises BlocksMoved when a merge moved blocks since the page of `after`.
        """
        ...

    async def closings(self, workspace: str, batch_id: str, after: int, limit: int) -> Sequence[Closing]:
        """Return the closed chunks with derived lines, with a key above `after`, in order of key."""
        ...

    # -- upkeep
    async def reap(self) -> Reaped:
        """Make sessions past whose lease has run out (or that are of another boot), and reopen their chunks."""
        ...

    async def release_worker(self, worker: str) -> Reaped:
        """Reap every session of this worker process at once: its supervisor saw it die."""
        ...

    async def close_canceling(self, limit: int) -> int:
        """Close up to `limit` open chunks of canceling batches; returns how many."""
        ...

    async def expire(self, limit: int) -> int:
        """End up to `limit` batches past their `expires_us`, fencing every chunk; returns how many."""
        ...

    async def end_check(self) -> int:
        """End batches without an open chunk that are not ended; returns how many (0, but for a fault)."""
        ...

    async def retire(self, retention_us: int, limit: int) -> int:
        """Archive up to `limit` ended batches older than `retention_us` since creation; returns how many."""
        ...

    async def find_unmerged(self, limit: int) -> Unmerged | None:
        """Return an ended batch whose merging is not done, with up to `limit` of its unmerged blocks, in order."""
        ...

    async def merge(self, merge: Merge) -> bool:
        """Record a merged segment in the place of the blocks it was made from; its parts stay as they are.

        False, and nothing is done, if the batch has left or its generation is another, or the session is past.
        """
        ...

    async def purge(self, grace_us: int, limit: int) -> int:
        """Remove rows of batches archived or deleted for longer than `grace_us`, in bounded steps, and doom their
        objects; remove stale or abandoned uploads likewise, and doom the objects of segments that merges emptied as
        long ago. Returns how many objects are newly doomed.
        """
        ...

    async def doomed(self, limit: int) -> Sequence[Doomed]:
        """Return objects that may be deleted now."""
        ...

    async def forget(self, keys: Sequence[str]) -> None:
        """Drop the rows of doomed objects that are deleted."""
        ...

    async def dead_segments(self, keys: Sequence[str]) -> Sequence[str]:
        """Return those segment keys that rows prove dead: no part of them is recorded and their session is past.

        A key's session stands in it: `segments/<session>/<number>`.
        """
        ...
