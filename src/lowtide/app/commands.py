"""What the commands do with their flags: load the settings, then run in this process until told to stop."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lowtide.app import logs
from lowtide.app.lifecycle import run
from lowtide.app.load import load


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
