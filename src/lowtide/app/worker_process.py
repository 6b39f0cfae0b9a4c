"""A worker process: one Worker until it is told to stop, under `lowtide serve` or alone as `lowtide worker`."""

import asyncio
import sys

import structlog

from lowtide.app import logs
from lowtide.app.compose import worker_parts
from lowtide.app.lifecycle import STOPPED, run, stop_on_lifeline, stop_on_signals, until_stopped
from lowtide.app.orders import LIFELINE, Orders, receive
from lowtide.app.settings import Settings

_log = structlog.get_logger()


async def main(name: str, settings: Settings, lifeline: int | None) -> int:
    """Work until told to stop; a worker whose supervisor dies finishes and stores what is in flight, then stops."""
    stop = asyncio.Event()
    async with worker_parts(settings, name) as worker:
        stop_on_signals(stop)
        if lifeline is not None:
            stop_on_lifeline(stop, lifeline, lambda: None)
        _log.info("worker.started")
        await until_stopped({"worker": worker.run}, stop)
    _log.info("worker.stopped")
    return STOPPED


def supervised(orders: Orders) -> int:
    """Run as a child of `lowtide serve`; returns the status to exit with."""
    logs.configure(orders.settings.log, process=orders.name)
    return run(main(orders.name, orders.settings, LIFELINE))


if __name__ == "__main__":
    sys.exit(supervised(receive()))
