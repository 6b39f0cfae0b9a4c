"""Batches made straight through the ports, as intake and a worker would make them, for tests and benchmarks.

Nothing here imitates the storage: whoever uses it passes a real store and a real directory of objects.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lowtide.domain.checksum import checksum
from lowtide.domain.chunks import bitmap_of, encode_head
from lowtide.domain.errors import ErrorType
from lowtide.domain.ids import BATCH, DEFAULT_WORKSPACE, new_id, new_token
from lowtide.domain.lines import error_result, errored_line, succeeded_line
from lowtide.domain.outcomes import Usage
from lowtide.domain.times import DAY_US
from lowtide.ports.clock import SystemClock
from lowtide.ports.metadata import (
    Batch,
    Block,
    Claimed,
    Commit,
    Committed,
    Creation,
    MetadataStore,
    NewBatch,
    NewChunk,
    Part,
    Session,
)
from lowtide.ports.objects import ObjectStore

BLOCK_BYTES_MAX = 1024 * 1024
CLAIMED_AT_ONCE = 512


class TurnedClock(SystemClock):
    """The machine's clocks, which a test may turn forward; both move together unless it says otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self._wall_ahead_us = 0
        self._lease_ahead_ns = 0

    def wall_us(self) -> int:
        return super().wall_us() + self._wall_ahead_us

    def lease_ns(self) -> int:
        return super().lease_ns() + self._lease_ahead_ns

    def turn(self, by_us: int) -> None:
        """Let this much time pass, on every clock."""
        self._wall_ahead_us += by_us
        self._lease_ahead_ns += by_us * 1000

    def turn_wall(self, by_us: int) -> None:
        """Set wall time alone, forward or back."""
        self._wall_ahead_us += by_us

    def turn_lease(self, by_us: int) -> None:
        """Let this much time pass on the clock of leases alone."""
        self._lease_ahead_ns += by_us * 1000


def custom_id(index: int) -> str:
    """Return the custom_id of the batch's request at this position."""
    return f"request-{index:06d}"


def good_line(name: str, text_bytes: int = 40) -> bytes:
    """Return a succeeded line whose message has a text of this many bytes."""
    return succeeded_line(name, b'{"id":"msg_01","type":"message","text":"%b"}' % (b"x" * text_bytes))


def bad_line(name: str) -> bytes:
    """Return an errored line."""
    return errored_line(name, error_result(ErrorType.API, "It broke", None))


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What a worker found for one chunk: lines of succeeded and errored requests, by index in the chunk."""

    chunk: Claimed
    succeeded: dict[int, bytes]
    errored: dict[int, bytes]


class Batches:
    """Makes batches in one store and one directory."""

    def __init__(self, store: MetadataStore, objects: ObjectStore) -> None:
        self.store = store
        self.objects = objects
        self._first: dict[tuple[str, int], int] = {}

    async def create(
        self,
        count: int,
        *,
        params: bytes | Sequence[bytes] = b'{"model":"m"}',
        chunk_size: int = 32,
        workspace: str = DEFAULT_WORKSPACE,
        window_us: int = DAY_US,
        headers: Mapping[str, str] | None = None,
        model: str = "m",
    ) -> Batch:
        """Store a batch of `count` requests, named by `custom_id`, in chunks of `chunk_size`.

        `params` are those of every request, or one for each.
        """
        upload = new_token()
        key = f"requests/{upload}"
        chunks, pieces = _planned(chunk_size, [params] * count if isinstance(params, bytes) else list(params), model)
        self._first |= {(key, chunk.offset): number * chunk_size for number, chunk in enumerate(chunks)}
        await self.store.begin_upload(workspace, upload, key)
        await self.objects.put(key, pieces)
        batch = NewBatch(
            id=new_id(BATCH),
            workspace=workspace,
            upload=upload,
            request_key=key,
            headers=headers or {},
            window_us=window_us,
            queued_requests_max=0,
            creation=Creation(new_token(), new_token(), 0, None),
        )
        return (await self.store.create_batch(batch, chunks)).batch

    async def claim(self, session: Session, batch: Batch, limit: int | None = None) -> list[Claimed]:
        """Claim the batch's open chunks (the first `limit`), in plan order."""
        held: list[Claimed] = []
        batch_key = next((one.batch_key for one in await self.store.backlogs() if one.batch_id == batch.id), None)
        if batch_key is None:
            return held
        after = 0
        while limit is None or len(held) < limit:
            wanted = CLAIMED_AT_ONCE if limit is None else min(limit - len(held), CLAIMED_AT_ONCE)
            page = await self.store.open_chunks(batch_key, after, wanted)
            if not page:
                break
            after = page[-1].key
            held += await self.store.claim(session.id, [chunk.key for chunk in page])
        return sorted(held, key=lambda chunk: chunk.key)

    def outcomes(
        self,
        chunk: Claimed,
        is_errored: Callable[[int], bool] = lambda _: False,
        text_bytes: int = 40,
        indexes: Sequence[int] | None = None,
    ) -> Outcomes:
        """Return outcomes for a chunk's requests: those of `indexes`, else all it has not resolved.

        `is_errored` is asked with a request's position in its batch.
        """
        if indexes is None:
            indexes = [index for index in range(chunk.size) if not chunk.resolved >> index & 1]
        first = self._first[chunk.request_key, chunk.offset]
        found = Outcomes(chunk, {}, {})
        for index in indexes:
            name = custom_id(first + index)
            if is_errored(first + index):
                found.errored[index] = bad_line(name)
            else:
                found.succeeded[index] = good_line(name, text_bytes)
        return found

    async def put_segment(self, session: Session, number: int, outcomes: Sequence[Outcomes]) -> Commit:
        """Write a segment and return the commit that records it: the object is there, its rows are not."""
        commit, pieces = segment(session, number, outcomes)
        await self.objects.put(commit.segment_key, pieces)
        return commit

    async def commit(self, session: Session, number: int, outcomes: Sequence[Outcomes]) -> Committed:
        """Write a segment and record it, as a worker does."""
        return await self.store.commit(await self.put_segment(session, number, outcomes))

    async def run(
        self, batch: Batch, *, is_errored: Callable[[int], bool] = lambda _: False, text_bytes: int = 40, each: int = 64
    ) -> Batch:
        """Run what is open of a batch to its end, `each` chunks to a segment; return it as it then is."""
        session = await self.store.open_session("runner", 60)
        held = await self.claim(session, batch)
        for number, start in enumerate(range(0, len(held), each)):
            await self.commit(
                session, number, [self.outcomes(chunk, is_errored, text_bytes) for chunk in held[start : start + each]]
            )
        await self.store.end_session(session.id)
        return await self.get(batch)

    async def get(self, batch: Batch) -> Batch:
        """Return the batch as it now is."""
        found = await self.store.get_batch(batch.workspace, batch.id)
        assert found is not None
        return found


def segment(session: Session, number: int, found: Sequence[Outcomes]) -> tuple[Commit, list[bytes]]:
    """Lay out a segment: chunks in order of batch and key, cut into blocks of one batch at part boundaries."""
    parts: list[Part] = []
    blocks: list[Block] = []
    pieces: list[bytes] = []
    open_parts: list[bytes] = []
    offset = 0

    def close_block(batch_key: int) -> None:
        data = b"".join(open_parts)
        blocks.append(Block(batch_key, offset - len(data), len(data), data.count(b"\n"), checksum(data)))
        pieces.append(data)
        open_parts.clear()

    for one in sorted(found, key=lambda one: (one.chunk.batch_key, one.chunk.key)):
        data = b"".join(line for _, line in sorted([*one.succeeded.items(), *one.errored.items()]))
        if open_parts:
            is_other_batch = parts[-1].batch_key != one.chunk.batch_key
            if is_other_batch or sum(map(len, open_parts)) + len(data) > BLOCK_BYTES_MAX:
                close_block(parts[-1].batch_key)
        parts.append(_part(one, offset, len(data)))
        open_parts.append(data)
        offset += len(data)
    close_block(parts[-1].batch_key)
    key = f"segments/{session.id}/{number}"
    return Commit(session.id, number, key, offset, blocks, parts), pieces


def _part(one: Outcomes, offset: int, length: int) -> Part:
    succeeded = len(one.succeeded)
    return Part(
        chunk=one.chunk.key,
        attempt=one.chunk.attempt,
        batch_key=one.chunk.batch_key,
        offset=offset,
        length=length,
        bits=bitmap_of([*one.succeeded, *one.errored]),
        succeeded=succeeded,
        errored=len(one.errored),
        usage=Usage(input_tokens=10 * succeeded, output_tokens=20 * succeeded),
    )


def _planned(chunk_size: int, params: Sequence[bytes], model: str) -> tuple[list[NewChunk], list[bytes]]:
    chunks: list[NewChunk] = []
    pieces: list[bytes] = []
    offset = 0
    for start in range(0, len(params), chunk_size):
        texts = params[start : start + chunk_size]
        size = len(texts)
        body = b"".join(texts)
        names = [custom_id(index) for index in range(start, start + size)]
        head = encode_head(names, list(range(start, start + size)), list(map(len, texts)), checksum(body))
        length = len(head) + len(body)
        chunks.append(NewChunk(0, model, offset, length, len(head), checksum(head), size))
        pieces += [head, body]
        offset += length
    return chunks, pieces
