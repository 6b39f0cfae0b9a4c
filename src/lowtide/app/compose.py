"""Putting the parts together: which driver stands behind which port, and which settings each part gets.

Nothing else names a driver. What is opened here is closed here, in reverse, whatever happens between.
"""

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from ipaddress import ip_network
from pathlib import Path

from lowtide.api.rates import Buckets
from lowtide.api.services import Services
from lowtide.api.watch import Live
from lowtide.app.directory import DATABASE, empty_spool
from lowtide.app.settings import Settings, UpstreamSettings
from lowtide.dispatch.settings import WorkerSettings
from lowtide.dispatch.worker import Worker
from lowtide.domain.limits import Limits
from lowtide.domain.times import SECOND_US
from lowtide.intake.create import Intake
from lowtide.ports.clock import Clock, SystemClock
from lowtide.ports.objects import ObjectStore
from lowtide.ports.store import Store
from lowtide.ports.upstream import Upstream
from lowtide.results.reader import Results
from lowtide.storage.local_objects import LocalObjects
from lowtide.storage.sqlite import SqliteStore
from lowtide.upkeep.loops import Upkeep, UpkeepIntervals
from lowtide.upstreams.config import UpstreamConfig, read_key
from lowtide.upstreams.messages import MessagesUpstream

CLOCK: Clock = SystemClock()


@asynccontextmanager
async def opened_store(settings: Settings) -> AsyncIterator[Store]:
    """Open the database, migrated to what this code knows, and close it at the end."""
    store = SqliteStore(settings.data / DATABASE, CLOCK)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def opened_upstreams(settings: Settings) -> AsyncIterator[Sequence[Upstream]]:
    """Build the upstreams with their keys, and close them at the end; raises SettingsError."""
    async with AsyncExitStack() as stack:
        upstreams = []
        for given in settings.upstreams:
            upstream = MessagesUpstream(upstream_config(given))
            stack.push_async_callback(upstream.close)
            upstreams.append(upstream)
        yield upstreams


@asynccontextmanager
async def api_parts(settings: Settings) -> AsyncIterator[tuple[Services, Upkeep]]:
    """Build what the API process runs: the services behind its doors, and upkeep. Empties the spool."""
    objects, limits = objects_of(settings), limits_of(settings)
    async with opened_store(settings) as store, opened_upstreams(settings) as upstreams:
        intake = Intake(
            store,
            objects,
            limits,
            empty_spool(settings.data),
            concurrent=settings.intake.concurrent,
            spool_bytes_max=settings.intake.spool_bytes_max,
            body_idle_s=settings.intake.body_idle_s,
        )

        async def ready() -> None:
            await store.check()
            await objects.check()

        services = Services(
            store=store,
            access=store,
            budget=Buckets(),
            objects=objects,
            intake=intake,
            results=Results(store, objects),
            live=Live(store, upstreams, CLOCK),
            upstreams=upstreams,
            clock=CLOCK,
            limits=limits,
            public_url=settings.public_url or None,
            trusted_proxies=[ip_network(network) for network in settings.trusted_proxies],
            ready=ready,
        )
        intervals = UpkeepIntervals(**settings.upkeep.model_dump())
        yield services, Upkeep(store, objects, CLOCK, limits, intervals)


@asynccontextmanager
async def worker_parts(settings: Settings, name: str) -> AsyncIterator[Worker]:
    """Build the worker of a worker process named `name`."""
    async with opened_store(settings) as store, opened_upstreams(settings) as upstreams:
        yield Worker(name, store, objects_of(settings), upstreams, worker_settings(settings), CLOCK)


def limits_of(settings: Settings) -> Limits:
    """Return the limits in the units of the code."""
    given = settings.limits
    return Limits(
        requests_max=given.requests_max,
        body_bytes_max=given.body_bytes_max,
        message_bytes_max=given.message_bytes_max,
        queued_requests_max=given.queued_requests_max,
        calls_per_minute_max=given.calls_per_minute_max,
        window_us=given.window_s * SECOND_US,
        retention_us=given.retention_s * SECOND_US,
    )


def worker_settings(settings: Settings) -> WorkerSettings:
    """Return a worker's settings; expiry's grace after a start is one setting for upkeep and workers."""
    return WorkerSettings(**settings.worker.model_dump(), expire_grace_s=settings.upkeep.expire_grace_s)


def upstream_config(given: UpstreamSettings) -> UpstreamConfig:
    """Return what the driver is told, the key included; raises SettingsError."""
    return UpstreamConfig(
        name=given.title,
        url=given.url,
        key=read_key(os.environ, given.title, key_env=given.key_env, key_file=_path(given.key_file)),
        key_header=given.key_header,
        models=given.models,
        aliases=tuple(given.aliases.items()),
        in_flight_max=given.in_flight_max,
        fetches_urls=given.fetches_urls,
        reply_bytes_max=given.reply_bytes_max,
        connect_timeout_s=given.connect_timeout_s,
        ca_file=_path(given.ca_file),
    )


def _path(path: Path | None) -> str | None:
    return None if path is None else str(path.expanduser())


def objects_of(settings: Settings) -> ObjectStore:
    """Return where objects are kept."""
    return LocalObjects(settings.data / "objects")
