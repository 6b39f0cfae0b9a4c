"""The metadata store over SQL: each operation of the port as one transaction or one read.

What a transaction does stands in the modules beside this one; here stands which of them are one transaction, and the
fault point around each commit. A driver brings the two ways to the database (`transactions`) and its own life.
"""

from collections.abc import Sequence

from lowtide import faults
from lowtide.domain.errors import RateLimited
from lowtide.domain.ids import new_token
from lowtide.ports.metadata import (
    Backlog,
    Batch,
    Claimed,
    Closing,
    Commit,
    Committed,
    Created,
    Creation,
    Doomed,
    Merge,
    NewBatch,
    NewChunk,
    OpenChunk,
    Page,
    Pulse,
    Reaped,
    Returned,
    Session,
    StoredBlock,
    Unmerged,
)
from lowtide.ports.report import Report
from lowtide.storage import batch_rows, commits, creating, doors, expiry, leases, merging, purging, reading, sessions
from lowtide.storage.sql_access import SqlAccess
from lowtide.storage.sql_live import SqlLive

QUEUE_RETRY_AFTER_S = 30

BEGIN_UPLOAD = faults.point("store.begin_upload", "the row that announces an upload is committed")
ABANDON_UPLOAD = faults.point("store.abandon_upload", "the mark that an upload is abandoned is committed")
MATCH_CREATE = faults.point("store.match_create", "the mark that a create's retry found its batch is committed")
CREATE_BATCH = faults.point("store.create_batch", "a batch and its chunks are committed")
NAME_BATCH = faults.point("store.name_batch", "the mark that a client knows its batch is committed")
CANCEL_BATCH = faults.point("store.cancel", "the mark that a batch is canceling is committed")
DELETE_BATCH = faults.point("store.delete_batch", "the mark that a batch is deleted is committed")
OPEN_SESSION = faults.point("store.open_session", "a session's row is committed")
HEARTBEAT = faults.point("store.heartbeat", "a session's renewed lease is committed")
END_SESSION = faults.point("store.end_session", "a session's end and the reopening of its chunks are committed")
CLAIM = faults.point("store.claim", "the leases of a claim are committed")
GIVE_BACK = faults.point("store.give_back", "the reopening of chunks given back is committed")
COMMIT = faults.point("store.commit", "a segment's row and its parts are committed")
REAP = faults.point("store.reap", "the end of past sessions and the reopening of their chunks are committed")
RELEASE_WORKER = faults.point("store.release_worker", "the end of a dead worker's sessions is committed")
CLOSE_CANCELING = faults.point("store.close_canceling", "the closing of canceled chunks is committed")
EXPIRE = faults.point("store.expire", "the end of batches past their time is committed")
END_CHECK = faults.point("store.end_check", "the end of batches that were left unended is committed")
RETIRE = faults.point("store.retire", "the archiving of old batches is committed")
MERGE = faults.point("store.merge", "a merged segment takes the place of the blocks it was made from")
PURGE = faults.point("store.purge", "the removal of a step of rows, with the objects that it dooms, is committed")
FORGET = faults.point("store.forget", "the removal of the rows of deleted objects is committed")


class SqlStore(SqlAccess, SqlLive):
    """The port's operations, for every SQL database."""

    # -- intake

    async def begin_upload(self, workspace: str, upload: str, request_key: str) -> None:
        await self._write(BEGIN_UPLOAD, creating.begin_upload, workspace, upload, request_key)

    async def abandon_upload(self, workspace: str, upload: str) -> None:
        await self._write(ABANDON_UPLOAD, creating.abandon_upload, workspace, upload)

    async def find_creation(self, workspace: str, creation: Creation) -> Batch | None:
        if not await self._read_now(creating.may_match, workspace, creation):
            return None
        return await self._write(MATCH_CREATE, creating.match, workspace, creation)

    async def create_batch(self, batch: NewBatch, chunks: Sequence[NewChunk]) -> Created:
        created = await self._write(CREATE_BATCH, creating.create_batch, batch, chunks)
        if created is None:
            raise RateLimited(
                f"This batch would exceed the limit of {batch.queued_requests_max} requests in processing. "
                "Please try again later.",
                retry_after_s=QUEUE_RETRY_AFTER_S,
            )
        return created

    # -- doors

    async def get_batch(self, workspace: str, batch_id: str) -> Batch | None:
        return await self._read(batch_rows.find, workspace, batch_id)

    async def list_batches(
        self, workspace: str, limit: int, before_id: str | None = None, after_id: str | None = None
    ) -> Page:
        return await self._read(doors.list_batches, workspace, limit, before_id, after_id)

    async def name_batch(self, workspace: str, batch_id: str, credential: str) -> None:
        unnamed = await self._read_now(doors.unnamed, workspace, batch_id, credential)
        if unnamed is not None:
            await self._write(NAME_BATCH, doors.name_batch, unnamed)

    async def cancel_batch(self, workspace: str, batch_id: str) -> Batch | None:
        return await self._write(CANCEL_BATCH, doors.cancel_batch, workspace, batch_id)

    async def delete_batch(self, workspace: str, batch_id: str) -> Batch | None:
        return await self._write(DELETE_BATCH, doors.delete_batch, workspace, batch_id)

    # -- dispatch

    async def open_session(self, worker: str, lease_s: float) -> Session:
        return await self._write(OPEN_SESSION, sessions.open_session, new_token(), worker, lease_s)

    async def heartbeat(self, session: str, held: Sequence[int], report: Report | None = None) -> Pulse:
        return await self._write(HEARTBEAT, sessions.heartbeat, session, held, report)

    async def end_session(self, session: str, report: Report | None = None) -> None:
        await self._write(END_SESSION, sessions.end_session, session, report)

    async def backlogs(self) -> Sequence[Backlog]:
        return await self._read(leases.backlogs)

    async def open_chunks(
        self, batch_key: int, after: int, limit: int, *, suspects: bool = False
    ) -> Sequence[OpenChunk]:
        return await self._read(leases.open_chunks, batch_key, after, limit, suspects=suspects)

    async def claim(self, session: str, chunks: Sequence[int]) -> Sequence[Claimed]:
        return await self._write(CLAIM, sessions.claim, session, chunks)

    async def give_back(self, session: str, chunks: Sequence[Returned]) -> None:
        await self._write(GIVE_BACK, leases.give_back, session, chunks)

    async def commit(self, commit: Commit) -> Committed:
        return await self._write(COMMIT, commits.commit, commit)

    # -- results

    async def blocks(
        self, workspace: str, batch_id: str, after: StoredBlock | None, limit: int
    ) -> Sequence[StoredBlock]:
        return await self._read(reading.blocks, workspace, batch_id, after, limit)

    async def closings(self, workspace: str, batch_id: str, after: int, limit: int) -> Sequence[Closing]:
        return await self._read(reading.closings, workspace, batch_id, after, limit)

    # -- upkeep

    async def reap(self) -> Reaped:
        return await self._write(REAP, sessions.reap)

    async def release_worker(self, worker: str) -> Reaped:
        return await self._write(RELEASE_WORKER, sessions.release_worker, worker)

    async def close_canceling(self, limit: int) -> int:
        return await self._write(CLOSE_CANCELING, expiry.close_canceling, limit)

    async def expire(self, limit: int) -> int:
        return await self._write(EXPIRE, expiry.expire, limit)

    async def end_check(self) -> int:
        return await self._write(END_CHECK, expiry.end_check)

    async def retire(self, retention_us: int, limit: int) -> int:
        return await self._write(RETIRE, purging.retire, retention_us, limit)

    async def find_unmerged(self, limit: int) -> Unmerged | None:
        return await self._read(merging.find_unmerged, limit)

    async def merge(self, merge: Merge) -> bool:
        return await self._write(MERGE, merging.merge, merge)

    async def purge(self, grace_us: int, limit: int) -> int:
        doomed = await self._write(PURGE, purging.doom_unused, grace_us, limit)
        for batch_key in await self._read_now(purging.leaving, grace_us, limit):
            done = False
            while not done:
                objects, done = await self._write(PURGE, purging.purge_step, batch_key)
                doomed += objects
        return doomed

    async def doomed(self, limit: int) -> Sequence[Doomed]:
        return await self._read(purging.find_doomed, limit)

    async def forget(self, keys: Sequence[str]) -> None:
        await self._write(FORGET, purging.forget, keys)

    async def dead_segments(self, keys: Sequence[str]) -> Sequence[str]:
        return await self._read(purging.dead_segments, keys)
