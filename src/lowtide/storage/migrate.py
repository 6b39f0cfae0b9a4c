"""Bringing a database to the schema of this code, and refusing one that is newer.

Alembic is imported only when there is something to migrate: a restart on a current database does not wait for it.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, inspect, text

from lowtide.domain.errors import StorageError, StoreUnavailable

SCHEMA: Final = "0004"
"""The revision that `tables` describes: the newest of `migrations`."""

_MIGRATIONS = Path(__file__).parent / "migrations"


@contextmanager
def alone(database: Path) -> Iterator[None]:
    """Hold off the other processes of this machine that open the same database, until the block is left.

    SQLite's own lock comes too late: turning on WAL takes none that waits.
    """
    with database.with_name(f"{database.name}.opening").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def current(conn: Connection) -> str | None:
    """Return the revision of a database, or None for an empty one."""
    if not inspect(conn).has_table("alembic_version"):
        return None
    return conn.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()


def require_current(conn: Connection) -> None:
    """Raise StoreUnavailable unless the database has the schema of this code."""
    found = current(conn)
    if found != SCHEMA:
        raise StoreUnavailable(f"the database has schema {found}, this Lowtide knows {SCHEMA}")


def upgrade(conn: Connection) -> None:
    """Bring the database to SCHEMA within the transaction of `conn`, which keeps other processes out."""
    found = current(conn)
    if found == SCHEMA:
        return
    from alembic import command  # noqa: PLC0415 -- a third of a second that a restart need not spend
    from alembic.config import Config  # noqa: PLC0415 -- likewise
    from alembic.script import ScriptDirectory  # noqa: PLC0415 -- likewise

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise StorageError(
            f"the database was written by a newer Lowtide (schema {found}); this one knows schemas up to {SCHEMA}"
        )
    config.attributes["connection"] = conn
    command.upgrade(config, SCHEMA)
