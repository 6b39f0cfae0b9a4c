"""The examination: every check in the order in which a person would mend things, each line as soon as it is known."""

from collections.abc import AsyncIterator, Iterator

from lowtide.app.doctor.findings import Finding, fail, ok
from lowtide.app.doctor.machine import check_clock, check_data, check_disk, check_fsync, check_open_files, nearest
from lowtide.app.doctor.stores import check_database, check_objects
from lowtide.app.doctor.upstreams import check_upstreams
from lowtide.app.engine import check_engine
from lowtide.app.settings import Settings
from lowtide.domain.errors import SettingsError


async def examine(settings: Settings) -> AsyncIterator[Finding]:
    """Yield what each check found."""
    settings = settings.model_copy(update={"data": settings.data.expanduser().absolute()})
    for finding in _machine(settings):
        yield finding
    for check in (check_database, check_objects, check_upstreams):
        async for finding in check(settings):
            yield finding


def _machine(settings: Settings) -> Iterator[Finding]:
    place = nearest(settings.data)
    yield from check_data(settings.data)
    yield from check_disk(place)
    yield from check_fsync(place)
    yield from check_clock()
    yield from check_open_files(settings)
    if settings.engine.gguf is not None:
        yield _engine(settings)


def _engine(settings: Settings) -> Finding:
    assert settings.engine.gguf is not None
    try:
        return ok("engine", f"{check_engine(settings.engine.gguf)} and llama.cpp are there")
    except SettingsError as error:
        return fail("engine", str(error), "Name a model file by --gguf, and install lowtide[gguf].")
