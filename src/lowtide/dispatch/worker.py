"""A worker: one process that runs requests, session after session.

The way through: `feed` chooses and claims chunks and hands their requests to `lanes`; `send` takes them from there to
an upstream and leaves results in `hold`; `commit` makes them durable; `pulse` keeps the leases; `life` is all of that for
one session. A session that is past is never revived: the worker lets go of everything and begins a new one.
"""

import asyncio
from collections.abc import Sequence

import structlog

from lowtide.dispatch.choose import Chooser
from lowtide.dispatch.kit import Kit
from lowtide.dispatch.life import Life
from lowtide.dispatch.report import Reporter
from lowtide.dispatch.settings import WorkerSettings
from lowtide.domain.errors import SessionPast, StoreUnavailable
from lowtide.ports.clock import Clock
from lowtide.ports.metadata import MetadataStore, Session
from lowtide.ports.objects import ObjectStore
from lowtide.ports.upstream import Upstream

_log = structlog.get_logger()


class Worker:
    """Runs until told to stop. `name` is this process life's own: a supervisor releases leases by it."""

    def __init__(
        self,
        name: str,
        store: MetadataStore,
        objects: ObjectStore,
        upstreams: Sequence[Upstream],
        settings: WorkerSettings,
        clock: Clock,
    ) -> None:
        self.name = name
        self._kit = Kit(store, objects, upstreams, settings, clock, Chooser(store), Reporter())

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, then drain: finish what is in flight, commit, release."""
        while not stop.is_set():
            session = await self._open_session(stop)
            if session is None:
                return
            try:
                await Life(session, self._kit).run(stop)
            except SessionPast:
                _log.warning("session.past", worker=self.name, session=session.id)

    async def _open_session(self, stop: asyncio.Event) -> Session | None:
        """Return a new session as soon as the store gives one, or None when told to stop before."""
        while not stop.is_set():
            try:
                session = await self._kit.store.open_session(self.name, self._kit.settings.lease_s)
            except StoreUnavailable as error:
                _log.warning("session.not_opened", worker=self.name, reason=str(error))
                await asyncio.sleep(self._kit.settings.idle_poll_s)
            else:
                _log.info("session.opened", worker=self.name, session=session.id)
                return session
        return None
