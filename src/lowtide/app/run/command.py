"""`lowtide run`: its settings, its state directory, and the exit status that tells how it went.

| status | meaning |
|---|---|
| 0 | every request succeeded |
| 1 | some did not; the summary says why, the output holds their errors |
| 2 | a flag, a setting or the input is wrong; nothing was sent, unless this says otherwise |
| 130 | stopped before the end; the same command goes on |
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import structlog

from lowtide.app import logs
from lowtide.app.compose import api_parts, limits_of
from lowtide.app.directory import held, prepare
from lowtide.app.engine import engine_in
from lowtide.app.lifecycle import FAULT, run
from lowtide.app.load import load
from lowtide.app.run.drive import Drive
from lowtide.app.run.job import Job
from lowtide.app.run.plan import plan
from lowtide.app.run.reading import LineReader
from lowtide.app.run.screen import Screen, screen
from lowtide.app.serve import check_upstreams
from lowtide.app.settings import LogSettings, Settings
from lowtide.domain.errors import SettingsError

FOREVER_S: Final = 100 * 365 * 86_400
"""Nobody waits so long: batches of a run do not expire, and their results are kept until the state is removed."""
LOG: Final = "run.log"
SLOTS_MAX: Final = 256
"""The most that llama.cpp runs at once."""
_log = structlog.get_logger()


def run_file(job: Job, flags: Mapping[str, Any], config: Path | None, *, in_flight: int | None) -> int:
    """Run a file of requests; returns the status to exit with. Raises SettingsError."""
    limits = {"window_s": FOREVER_S, "queued_requests_max": 0, **flags.get("limits", {}), "retention_s": FOREVER_S}
    settings = load({**flags, "limits": limits, "data": str(job.state)}, config)
    if in_flight is not None:
        settings = _with_in_flight(settings, in_flight)
    settings = settings.model_copy(update={"data": prepare(job.state)})
    shown = screen()
    with held(settings.data, "lowtide run"), engine_in(settings) as complete:
        check_upstreams(complete, needed=True)
        try:
            return _run(job, complete, shown)
        finally:
            shown.close()


def _run(job: Job, settings: Settings, shown: Screen) -> int:
    limits = limits_of(settings)
    fetches_urls = any(upstream.fetches_urls for upstream in settings.upstreams)
    reader = LineReader(job.fill, length_max=limits.body_bytes_max // 2, fetches_urls=fetches_urls)
    made, source = plan(job, reader, limits, shown.reading)
    log = os.open(settings.data / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(os.dup(log), "w", encoding="utf-8", buffering=1) as stream:
            quiet = settings.model_copy(update={"log": LogSettings(level=settings.log.level, format="json")})
            logs.configure(quiet.log, to=stream, process="run")

            async def main() -> int:
                try:
                    async with api_parts(quiet) as (services, upkeep):
                        drive = Drive(job, quiet, limits, made, source, reader, shown)
                        return await drive.run(services, upkeep, log)
                except SettingsError:
                    raise
                except Exception as error:  # noqa: BLE001 the run ends here and says why, whatever it was
                    _log.exception("run.failed")
                    shown.close()
                    shown.say(
                        f"lowtide: The run failed ({error or type(error).__name__}); {settings.data / LOG} has more."
                    )
                    return FAULT

            return run(main())
    finally:
        os.close(log)


def _with_in_flight(settings: Settings, in_flight: int) -> Settings:
    """Let so many requests run at once on each upstream, the embedded engine's slots included."""
    upstreams = tuple(one.model_copy(update={"in_flight_max": in_flight}) for one in settings.upstreams)
    engine = settings.engine.model_copy(update={"in_flight_max": min(in_flight, SLOTS_MAX)})
    return settings.model_copy(update={"upstreams": upstreams, "engine": engine})
