"""What is going on, over SQL: each operation of the port as one read, with the moment it is judged by."""

from collections.abc import Sequence

from lowtide.ports.live import Gauges, Progress, WorkerSeen
from lowtide.storage import progress
from lowtide.storage.transactions import Transactions


class SqlLive(Transactions):
    """The operations of `LiveStore`, for every SQL database."""

    async def progress(self, workspace: str, batch_id: str) -> Progress | None:
        return await self._read_now(progress.progress, workspace, batch_id)

    async def workers(self) -> Sequence[WorkerSeen]:
        return await self._read_now(progress.workers)

    async def gauges(self) -> Gauges:
        return await self._read_now(progress.gauges)
