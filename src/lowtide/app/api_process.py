"""The API process of `lowtide serve`: the HTTP doors on the inherited socket, and upkeep beside them."""

import asyncio
import socket
import sys

import structlog

from lowtide.api.app import create_app
from lowtide.api.watch import Live
from lowtide.app import logs
from lowtide.app.compose import api_parts
from lowtide.app.http_server import Server, server
from lowtide.app.lifecycle import STOPPED, run, stop_on_lifeline, stop_on_signals, until_stopped
from lowtide.app.orders import LIFELINE, Orders, receive
from lowtide.domain.errors import SettingsError

ORPHAN_GRACE_S = 1
"""What calls have when the supervisor is dead: its successor waits for the socket and the spool."""

_log = structlog.get_logger()


async def main(orders: Orders) -> int:
    """Serve until told to stop; returns the status to exit with."""
    settings = orders.settings
    if orders.listener is None:
        raise SettingsError("An API process needs a listening socket from `lowtide serve`.")
    listener = socket.socket(fileno=orders.listener)
    stop = asyncio.Event()
    async with api_parts(settings) as (services, upkeep):
        http = server(create_app(services), settings.http, grace_s=settings.http.grace_s)
        stop_on_signals(stop)
        stop_on_lifeline(stop, LIFELINE, lambda: _hurry(http))

        async def serve(stop: asyncio.Event) -> None:
            stopping = asyncio.create_task(_stop_serving(http, services.live, stop))
            await http.serve([listener])
            stopping.cancel()

        _log.info("api.started")
        await until_stopped({"http": serve, "upkeep": upkeep.run}, stop)
    _log.info("api.stopped")
    return STOPPED


async def _stop_serving(http: Server, live: Live, stop: asyncio.Event) -> None:
    """Stop when told to; event streams would otherwise go on for as long as calls have to finish."""
    await stop.wait()
    live.stop()
    http.should_exit = True


def _hurry(http: Server) -> None:
    http.config.timeout_graceful_shutdown = ORPHAN_GRACE_S


if __name__ == "__main__":
    given = receive()
    logs.configure(given.settings.log, process=given.name)
    sys.exit(run(main(given)))
