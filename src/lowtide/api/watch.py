"""Looking at batches: once for whoever asks, and again and again for those who listen.

All listeners of a batch share one look at the store each second, which begins with the first of them and ends with the
last. A listener that is slow misses states in between, never the last one. Invariant workspace-walls: a watch belongs to
one workspace and one batch.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

import msgspec
import structlog

from lowtide.api.live_wire import BatchProgress, batch_progress
from lowtide.api.standing import standing_still
from lowtide.domain.checksum import checksum
from lowtide.domain.errors import LowtideError, RateLimited
from lowtide.ports.clock import Clock
from lowtide.ports.live import LiveStore, WorkerSeen
from lowtide.ports.upstream import Upstream

LOOK_S = 1.0
QUIET_S = 15.0
"""After so long without news a listener is told that the connection lives."""
LISTENERS_MAX = 1024

_encode = msgspec.json.Encoder().encode
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Seen:
    """A batch at one look. Two looks that show the same have the same `mark`, in every process."""

    data: bytes
    mark: str
    ended: bool

    @classmethod
    def of(cls, progress: BatchProgress) -> "Seen":
        shown = (progress.id, progress.processing_status, progress.request_counts, progress.standing_still)
        mark = f"{checksum(_encode(shown)) & 0xFFFFFFFFFFFFFFFF:016x}"
        return cls(_encode(progress), mark, progress.ended_at is not None)


@dataclass(eq=False)
class _Watch:
    """One batch under watch: what was seen last, who waits for more, and the task that looks."""

    listeners: int = 0
    seen: Seen | None = None
    over: bool = False
    """Nothing will be seen any more."""
    news: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    def tell(self) -> None:
        """Wake everybody who waits for what comes next."""
        self.news.set()
        self.news = asyncio.Event()


class Live:
    """What goes on, for the doors of one process."""

    def __init__(
        self, store: LiveStore, upstreams: Sequence[Upstream], clock: Clock, *, look_s: float = LOOK_S
    ) -> None:
        self.store = store
        self._upstreams = {upstream.name: upstream for upstream in upstreams}
        self._clock = clock
        self._look_s = look_s
        self._watches: dict[tuple[str, str], _Watch] = {}
        self._stopped = False

    @property
    def listeners(self) -> int:
        return sum(watch.listeners for watch in self._watches.values())

    async def look(self, workspace: str, batch_id: str) -> BatchProgress | None:
        """Return how far a batch is now, or None for an unknown, deleted or foreign id."""
        progress = await self.store.progress(workspace, batch_id)
        if progress is None:
            return None
        workers: Sequence[WorkerSeen] = ()
        if progress.batch.ended_us is None:
            workers = await self.store.workers()
        standing = standing_still(progress, workers, self._serves)
        return batch_progress(progress, standing, self._clock.wall_us())

    def _serves(self, upstream: str, model: str) -> bool:
        """Tell whether an upstream may have a model; one that this process does not know may have any."""
        known = self._upstreams.get(upstream)
        return known is None or known.serves(model)

    async def follow(
        self, workspace: str, batch_id: str, *, quiet_s: float = QUIET_S
    ) -> AsyncGenerator[Seen | None, None]:
        """Yield what is seen of a batch whenever it is new, until its end; None when nothing was for `quiet_s`.

        Raises RateLimited when too many listen.
        """
        if self.listeners >= LISTENERS_MAX:
            raise RateLimited("Too many clients listen to events. Please try again later.", retry_after_s=30)
        watch = self._enter((workspace, batch_id))
        last: Seen | None = None
        try:
            while True:
                news, seen = watch.news, watch.seen
                if seen is not None and seen is not last:
                    yield seen
                    last = seen
                    if seen.ended:
                        return
                elif watch.over or self._stopped:
                    return
                elif not await _happens(news, quiet_s):
                    yield None
        finally:
            await self._leave((workspace, batch_id), watch)

    def stop(self) -> None:
        """End every stream: this process stops, and clients connect to the next one."""
        self._stopped = True
        for watch in self._watches.values():
            watch.tell()

    def _enter(self, key: tuple[str, str]) -> _Watch:
        watch = self._watches.get(key)
        if watch is None:
            watch = self._watches[key] = _Watch()
            watch.task = asyncio.create_task(self._keep_looking(key, watch), name="live.look")
        watch.listeners += 1
        return watch

    async def _leave(self, key: tuple[str, str], watch: _Watch) -> None:
        watch.listeners -= 1
        if watch.listeners == 0 and watch.task is not None:
            if self._watches.get(key) is watch:
                del self._watches[key]
            watch.task.cancel()
            (ended,) = await asyncio.gather(watch.task, return_exceptions=True)
            if isinstance(ended, Exception):
                _log.error("live.look_broke", batch=key[1], error=type(ended).__name__)

    async def _keep_looking(self, key: tuple[str, str], watch: _Watch) -> None:
        """Look until the batch has ended or is gone; a store that is away for a while costs looks, not listeners.

        Whatever else ends the task ends the streams too, so that no listener waits for it.
        """
        try:
            while not watch.over:
                await self._look_again(key, watch)
                if not watch.over:
                    await asyncio.sleep(self._look_s)
        finally:
            watch.over = True
            if self._watches.get(key) is watch:
                del self._watches[key]
            watch.tell()

    async def _look_again(self, key: tuple[str, str], watch: _Watch) -> None:
        try:
            progress = await self.look(*key)
        except LowtideError as error:
            _log.debug("live.look_failed", batch=key[1], error=type(error).__name__)
            return
        if progress is None:
            watch.over = True
            return
        seen = Seen.of(progress)
        if watch.seen is None or watch.seen.mark != seen.mark:
            watch.seen, watch.over = seen, seen.ended
            watch.tell()


async def _happens(event: asyncio.Event, within_s: float) -> bool:
    try:
        async with asyncio.timeout(within_s):
            await event.wait()
    except TimeoutError:
        return False
    return True
