"""The engine's process: llama.cpp's own server, loaded from one file, until its supervisor stops it or dies.

Nothing of a request passes through Python here. What it holds is worth nothing to anyone once its supervisor is gone,
so it then ends at once and frees the memory.
"""

import asyncio
import importlib
import os
import sys
from pathlib import Path
from typing import Any

import structlog

from lowtide.app import logs
from lowtide.app.engine import engine_key, engine_port, model_name
from lowtide.app.lifecycle import STOPPED, run, stop_on_lifeline, stop_on_signals
from lowtide.app.orders import LIFELINE, Orders, receive
from lowtide.app.settings import Settings
from lowtide.domain.errors import SettingsError

_WARNINGS = 2
"""Below this llama.cpp logs every request."""

_log = structlog.get_logger()


async def main(orders: Orders) -> int:
    """Load the model and serve it until told to stop; returns the status to exit with."""
    stop = asyncio.Event()
    stop_on_signals(stop)
    stop_on_lifeline(stop, LIFELINE, _leave)
    llama = importlib.import_module("xllamacpp")
    try:
        server = await asyncio.to_thread(llama.Server, parameters(llama.CommonParams(), orders.settings))
    except RuntimeError as error:
        raise SettingsError(f"llama.cpp cannot load {orders.settings.engine.gguf}: {error}") from None
    _log.info("engine.started", url=server.listening_address)
    await stop.wait()
    _log.info("engine.stopped")
    sys.stderr.flush()
    os._exit(STOPPED)  # its destructor waits for whatever is being generated, which nobody reads any more


def _leave() -> None:
    os._exit(STOPPED)


def parameters(params: Any, settings: Settings) -> Any:
    """Fill in llama.cpp's parameters. Each slot has its own share of the context, so that none starves another."""
    engine = settings.engine
    gguf = engine.gguf or Path()
    params.model.path = str(gguf)
    params.model_alias = {model_name(gguf)}
    params.hostnames = ["127.0.0.1"]
    params.port = engine_port(settings)
    params.reuse_port = True
    params.api_keys = [engine_key(os.environ)]
    params.n_parallel = engine.in_flight_max
    params.n_ctx = engine.in_flight_max * engine.context_tokens_max
    params.n_gpu_layers = engine.gpu_layers_max
    if engine.threads_max:
        params.cpuparams.n_threads = engine.threads_max
    params.cache_ram_mib = 0  # slots keep their prefixes, and requests that share one come one after the other
    params.endpoint_metrics = True
    params.endpoint_slots = False
    params.ui = False
    params.verbosity = _WARNINGS
    return params


if __name__ == "__main__":
    given = receive()
    logs.configure(given.settings.log, process=given.name)
    sys.exit(run(main(given)))
