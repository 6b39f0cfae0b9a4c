"""What is stored: whether the database and the objects can be used, without changing either."""

import asyncio
from collections.abc import AsyncIterator

from lowtide.app.compose import objects_of
from lowtide.app.directory import DATABASE
from lowtide.app.doctor.findings import Finding, fail, ok, warn
from lowtide.app.settings import Settings
from lowtide.domain.errors import StorageError
from lowtide.storage.inspection import inspect


async def check_database(settings: Settings) -> AsyncIterator[Finding]:
    """Look at the database as it is; it is not migrated here."""
    path = settings.data / DATABASE
    if not path.exists():
        yield ok("database", "none yet; it is made at the first start")
        return
    try:
        found = await asyncio.to_thread(inspect, path)
    except StorageError as error:
        yield fail("database", str(error), f"Look at who else uses {path}, and at its permissions.")
        return
    if found.damage is not None:
        yield fail("database", f"{path} is damaged: {found.damage}", "Keep the file, and restore it from a backup.")
    elif found.is_newer:
        yield fail("database", f"a newer Lowtide wrote it (schema {found.schema})", "Install that version again.")
    elif found.is_older:
        yield warn("database", f"schema {found.schema} of an older Lowtide", "The next start migrates it: back it up.")
    else:
        yield ok("database", f"schema {found.schema}, {'sound' if found.whole else 'sound as far as it was checked'}")


async def check_objects(settings: Settings) -> AsyncIterator[Finding]:
    """Write an object and read it again, unless nothing was ever stored."""
    if not settings.data.exists():
        yield ok("objects", "none yet")
        return
    try:
        await objects_of(settings).check()
    except StorageError as error:
        yield fail("objects", str(error), "Creates are refused and results wait until it takes writes again.")
    else:
        yield ok("objects", "written and read back")
