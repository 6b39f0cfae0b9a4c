"""Looking at a SQLite database without changing it: which schema it has, and whether it is sound.

For a person who asks before a start, or beside a server that runs. Nothing is migrated; a large database is checked for as
long as a person would wait, and no longer.
"""

import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lowtide.domain.errors import StoreUnavailable
from lowtide.storage.migrate import SCHEMA

CHECK_S: Final = 5.0
_STEPS_BETWEEN_LOOKS: Final = 100_000


@dataclass(frozen=True, slots=True)
class Inspected:
    """A database as it was found. `damage` is SQLite's first complaint; `whole` says that all of it was checked."""

    schema: str | None
    damage: str | None
    whole: bool

    @property
    def is_newer(self) -> bool:
        return self.schema is not None and self.schema > SCHEMA

    @property
    def is_older(self) -> bool:
        return self.schema is None or self.schema < SCHEMA


def inspect(path: Path, check_s: float = CHECK_S) -> Inspected:
    """Return what stands in the file at `path`; raises StoreUnavailable when it cannot be opened or is locked."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)) as conn:
            conn.execute("PRAGMA query_only=ON")
            return _inspect(conn, time.monotonic() + check_s)
    except sqlite3.OperationalError as error:
        raise StoreUnavailable(f"the database cannot be used: {error}") from error
    except sqlite3.DatabaseError as error:
        return Inspected(None, str(error), whole=False)


def _inspect(conn: sqlite3.Connection, until_s: float) -> Inspected:
    tables = conn.execute("SELECT count(*) FROM sqlite_master WHERE name = 'alembic_version'").fetchone()[0]
    row = conn.execute("SELECT version_num FROM alembic_version").fetchone() if tables else None
    schema = None if row is None else str(row[0])
    conn.set_progress_handler(lambda: time.monotonic() > until_s, _STEPS_BETWEEN_LOOKS)
    try:
        said = str(conn.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
            raise
        return Inspected(schema, None, whole=False)
    return Inspected(schema, None if said == "ok" else said, whole=True)
