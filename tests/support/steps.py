"""Single steps on a metadata store, without objects: what directed schedules are made of."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

from sqlalchemy import Connection, select

from lowtide.domain.chunks import full_bitmap
from lowtide.domain.ids import BATCH, new_id, new_token
from lowtide.domain.outcomes import Outcome, Usage
from lowtide.domain.states import BatchState
from lowtide.domain.times import DAY_US, SECOND_US
from lowtide.ports.metadata import (
    Batch,
    Block,
    Claimed,
    Commit,
    Committed,
    Created,
    Creation,
    Merge,
    NewBatch,
    NewChunk,
    Part,
    Unmerged,
)
from lowtide.ports.metadata import Session as StoreSession
from lowtide.storage import batch_rows
from lowtide.storage.sql_store import SqlStore
from lowtide.storage.tables import batch, chunk

WORKSPACE = "wrkspc_test"
START_US = 1_700_000_000 * SECOND_US
EACH = Usage(3, 5, 7, 11)
"""What every succeeded request of these steps used."""


class SetClock:
    """Clocks that stand still until a test moves them."""

    def __init__(self) -> None:
        self.wall = START_US
        self.lease = SECOND_US
        self.boot = "boot-1"

    def wall_us(self) -> int:
        return self.wall

    def lease_ns(self) -> int:
        return self.lease * 1000

    def boot_id(self) -> str:
        return self.boot

    def pass_lease(self, seconds: float) -> None:
        self.lease += round(seconds * SECOND_US)

    def pass_wall(self, by_us: int) -> None:
        self.wall += by_us


class Steps:
    """Steps of clients, workers and upkeep on one store."""

    def __init__(self, store: SqlStore, clock: SetClock) -> None:
        self.store = store
        self.clock = clock
        self._numbers = count(1)

    # -- clients

    async def create(
        self,
        sizes: Sequence[int] = (8,),
        *,
        creation: Creation | None = None,
        workspace: str = WORKSPACE,
        window_us: int = DAY_US,
        queued_requests_max: int = 0,
        headers: Mapping[str, str] | None = None,
    ) -> Created:
        """Create a batch with a chunk of each size, by a credential of its own unless `creation` says otherwise."""
        upload = new_token()
        await self.store.begin_upload(workspace, upload, f"requests/{upload}")
        new = NewBatch(
            id=new_id(BATCH),
            workspace=workspace,
            upload=upload,
            request_key=f"requests/{upload}",
            headers=headers or {},
            window_us=window_us,
            queued_requests_max=queued_requests_max,
            creation=creation or Creation(new_token(), new_token(), 0, None),
        )
        chunks = [NewChunk(0, "m", 1000 * at, 1000, 100, -at, size) for at, size in enumerate(sizes)]
        return await self.store.create_batch(new, chunks)

    async def batch(self, sizes: Sequence[int] = (8,), **options: Any) -> Batch:
        return (await self.create(sizes, **options)).batch

    async def get(self, of: Batch) -> Batch:
        """Return the batch as its row is, deleted or not."""

        def look(conn: Connection) -> Batch:
            return batch_rows.to_batch(conn.execute(select(batch).where(batch.c.id == of.id)).one())

        return await self.store._read(look)

    # -- workers

    async def session(self, worker: str = "worker", lease_s: float = 2.0) -> StoreSession:
        return await self.store.open_session(worker, lease_s)

    async def keys(self, of: Batch) -> list[int]:
        """Return the keys of a batch's chunks, in plan order."""

        def look(conn: Connection) -> list[int]:
            found = select(chunk.c.key).join(batch, batch.c.key == chunk.c.batch_key).where(batch.c.id == of.id)
            return list(conn.execute(found.order_by(chunk.c.key)).scalars())

        return await self.store._read(look)

    async def row(self, key: int) -> dict[str, Any]:
        """Return all that is stored of a chunk."""
        return await self.store._read(
            lambda conn: dict(conn.execute(select(chunk).where(chunk.c.key == key)).one()._mapping)
        )

    async def claim(self, session: StoreSession, of: Batch) -> list[Claimed]:
        return list(await self.store.claim(session.id, await self.keys(of)))

    async def commit(self, session: StoreSession, parts: Iterable[Part], number: int | None = None) -> Committed:
        return await self.store.commit(self.segment(session, parts, number))

    def segment(self, session: StoreSession, parts: Iterable[Part], number: int | None = None) -> Commit:
        """Lay parts out one after the other, a block for each."""
        number = next(self._numbers) if number is None else number
        placed: list[Part] = []
        offset = 0
        for part in parts:
            length = 10 * part.bits.bit_count()
            placed.append(_placed(part, offset, length))
            offset += length
        blocks = [
            Block(part.batch_key, part.offset, part.length, part.bits.bit_count(), -1) for part in placed if part.bits
        ]
        return Commit(session.id, number, f"segments/{session.id}/{number}", offset, blocks, placed)

    async def finish(self, of: Batch) -> Batch:
        """Run what is open of a batch to its end: every request succeeds."""
        session = await self.session("finisher", 3600)
        held = await self.claim(session, of)
        await self.commit(session, [rest(one) for one in held])
        await self.store.end_session(session.id)
        return await self.get(of)

    async def bring_to(self, state: BatchState, of: Batch) -> Batch:
        """Bring a batch in progress to a state."""
        if state is BatchState.CANCELING:
            await self.store.cancel_batch(of.workspace, of.id)
        elif state is not BatchState.IN_PROGRESS:
            await self.finish(of)
        if state is BatchState.ARCHIVED:
            await self.store.retire(0, 10)
        if state is BatchState.DELETED:
            await self.store.delete_batch(of.workspace, of.id)
        return await self.get(of)

    # -- upkeep

    async def merge(self, session: StoreSession) -> bool:
        """Let one block take the place of all unmerged ones of the oldest ended batch."""
        found = await self.store.find_unmerged(1000)
        assert found is not None
        return await self.store.merge(self.merged(session, found))

    def merged(self, session: StoreSession, found: Unmerged) -> Merge:
        """Return a merge of all blocks of `found` into one."""
        number = next(self._numbers)
        length = sum(sent for block in found.blocks for _, sent in block.pieces)
        key = f"segments/{session.id}/{number}"
        blocks = [Block(found.batch_key, 0, length, length // 10, -1)] if length else []
        done = len(found.blocks) == found.count
        return Merge(
            session.id, number, key, length, found.batch_key, found.generation, found.blocks, blocks, done=done
        )


def some(
    claimed: Claimed,
    bits: int,
    *,
    errored: int = 0,
    closing: Outcome | None = None,
    closing_error: bytes | None = None,
    tries: bytes = b"",
) -> Part:
    """Return a part that resolves `bits`, of which `errored` did not succeed."""
    succeeded = bits.bit_count() - errored
    usage = Usage(*(succeeded * each for each in (3, 5, 7, 11)))
    return Part(
        chunk=claimed.key,
        attempt=claimed.attempt,
        batch_key=claimed.batch_key,
        offset=0,
        length=0,
        bits=bits,
        succeeded=succeeded,
        errored=errored,
        usage=usage,
        tries=tries,
        closing=closing,
        closing_error=closing_error,
    )


def rest(claimed: Claimed) -> Part:
    """Return a part that resolves all that the claim found outstanding."""
    return some(claimed, full_bitmap(claimed.size) & ~claimed.resolved)


def _placed(part: Part, offset: int, length: int) -> Part:
    return replace(part, offset=offset, length=length)
