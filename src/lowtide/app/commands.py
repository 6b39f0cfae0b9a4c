"""What the commands do with their flags: load the settings, then run in this process until told to stop."""

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lowtide.app import logs
from lowtide.app.lifecycle import run
from lowtide.app.load import load, load_with_sources

if TYPE_CHECKING:
    from lowtide.app.doctor.findings import Finding
    from lowtide.app.effective import Effective
    from lowtide.app.settings import Settings


def run_serve(flags: Mapping[str, Any], config: Path | None, *, with_workers: bool) -> int:
    """Run `lowtide serve`; returns the status to exit with. Raises SettingsError."""
    from lowtide.app.serve import serve  # noqa: PLC0415 a wrong setting is told before everything is loaded

    return run(serve(load(flags, config), with_workers=with_workers))


def run_worker(flags: Mapping[str, Any], config: Path | None) -> int:
    """Run `lowtide worker`; returns the status to exit with. Raises SettingsError."""
    settings = load(flags, config)
    from lowtide.app.directory import prepare  # noqa: PLC0415 likewise
    from lowtide.app.serve import check_upstreams, worker_banner  # noqa: PLC0415 likewise
    from lowtide.app.worker_process import main  # noqa: PLC0415 likewise
    from lowtide.domain.ids import new_token  # noqa: PLC0415 likewise

    check_upstreams(settings, needed=True)
    settings = settings.model_copy(update={"data": prepare(settings.data)})
    name = f"worker-{os.getpid()}-{new_token()[:12]}"
    logs.configure(settings.log, process=name)
    print(worker_banner(settings, name), flush=True)  # noqa: T201 a command's own words
    return run(main(name, settings, lifeline=None))


def run_doctor(flags: Mapping[str, Any], config: Path | None, show: Callable[["Finding"], None]) -> bool:
    """Show what each check finds, as it is found; returns whether none failed. Raises SettingsError."""
    settings = load(flags, config)
    from lowtide.app.doctor.examine import examine  # noqa: PLC0415 likewise
    from lowtide.app.doctor.findings import Level  # noqa: PLC0415 likewise

    async def show_all() -> bool:
        well = True
        async for finding in examine(settings):
            show(finding)
            well = well and finding.level is not Level.FAIL
        return well

    return asyncio.run(show_all())


def check_settings(config: Path | None) -> tuple["Settings", str]:
    """Return settings that can be used and the names of their sources, keys and model file looked for; or raise."""
    settings, sources = load_with_sources({}, config)
    from lowtide.app.engine import check_engine  # noqa: PLC0415 likewise
    from lowtide.app.serve import check_upstreams  # noqa: PLC0415 likewise

    check_upstreams(settings, needed=False)
    if settings.engine.gguf is not None:
        check_engine(settings.engine.gguf)
    return settings, ", ".join(source.where for source in sources if source.values) or "defaults alone"


def effective_settings(config: Path | None) -> Sequence["Effective"]:
    """Return every setting in effect. Raises SettingsError."""
    from lowtide.app.effective import effective  # noqa: PLC0415 likewise

    return list(effective(*load_with_sources({}, config)))
