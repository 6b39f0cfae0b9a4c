"""The metadata store in one SQLite file, shared by the processes of one machine.

One thread of a process writes, on a connection of its own, and every write begins with BEGIN IMMEDIATE: a read turned
write fails at once with "locked", whatever the timeout. A few threads read. A transaction runs within one hop to its
thread, so none is held while bytes go to a client or while an event loop is busy, and a cancelled caller leaves none
behind. WAL with `synchronous=FULL`: a commit that returned survives a power cut. Leases are judged by the machine's
boot clock, since all writers are on this machine; another boot id voids them all.
"""

import asyncio
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError

from lowtide.domain.errors import StoreFull, StoreUnavailable
from lowtide.faults import FaultError, FaultPoint
from lowtide.ports.clock import Clock
from lowtide.storage import migrate
from lowtide.storage.moments import Moment
from lowtide.storage.sql_store import SqlStore

_P = ParamSpec("_P")
_T = TypeVar("_T")

READERS = 4
BUSY_TIMEOUT_S = 10.0
"""How long a write waits for another process's; longer than any transaction, expiry of 100,000 requests included."""
WATCH_INTERVAL_S = 0.03
_PRAGMAS = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA foreign_keys=ON",
    "PRAGMA temp_store=MEMORY",
    "PRAGMA cache_size=-16384",
    "PRAGMA journal_size_limit=67108864",
)
_FULL_CODES = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY})
_PRIMARY_CODE = 0xFF


class SqliteStore(SqlStore):
    """Batches and chunks in the SQLite file at `path`."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._writer = _engine(path, "BEGIN IMMEDIATE", 1)
        self._readers = _engine(path, "BEGIN", READERS)
        self._writing = ThreadPoolExecutor(1, "lowtide-writer")
        self._reading = ThreadPoolExecutor(READERS, "lowtide-reader")
        self._watch: sqlite3.Connection | None = None
        self._seen_version = 0

    # -- life

    async def open(self) -> None:
        """Bring the file to the schema of this code; raises StorageError when a newer Lowtide wrote it."""
        await self._run(self._writing, self._open)

    async def close(self) -> None:
        await asyncio.to_thread(self._close)

    async def check(self) -> None:
        await self._read(migrate.require_current)

    async def changed(self, timeout_s: float) -> None:
        """Return when the file was written since the last return; there is one waiter per store."""
        end = time.monotonic() + timeout_s
        while (version := await self._run(self._reading, self._version)) == self._seen_version:
            left_s = end - time.monotonic()
            if left_s <= 0:
                return
            await asyncio.sleep(min(WATCH_INTERVAL_S, left_s))
        self._seen_version = version

    # -- transactions

    async def _write(
        self,
        fault: FaultPoint,
        work: Callable[Concatenate[Connection, Moment, _P], _T],
        *args: _P.args,
        **kwargs: _P.kwargs,
    ) -> _T:
        def transact() -> _T:
            with self._writer.connect() as conn, conn.begin() as transaction:
                answer = work(conn, self._moment(), *args, **kwargs)
                with fault:
                    transaction.commit()
            return answer

        return await self._run(self._writing, transact)

    async def _read(self, work: Callable[Concatenate[Connection, _P], _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        def look() -> _T:
            with self._readers.connect() as conn, conn.begin():
                return work(conn, *args, **kwargs)

        return await self._run(self._reading, look)

    async def _read_now(
        self, work: Callable[Concatenate[Connection, Moment, _P], _T], *args: _P.args, **kwargs: _P.kwargs
    ) -> _T:
        def look(conn: Connection) -> _T:
            return work(conn, self._moment(), *args, **kwargs)

        return await self._read(look)

    async def _run(self, executor: ThreadPoolExecutor, work: Callable[[], _T]) -> _T:
        try:
            return await asyncio.get_running_loop().run_in_executor(executor, work)
        except FaultError as error:
            raise StoreUnavailable(str(error)) from error
        except (DBAPIError, sqlite3.Error) as error:
            raise _translated(error) from error

    def _moment(self) -> Moment:
        return Moment(self._clock.wall_us(), self._clock.lease_ns() // 1000, self._clock.boot_id())

    # -- in the threads

    def _open(self) -> None:
        with migrate.alone(self._path), self._writer.connect() as conn, conn.begin():
            migrate.upgrade(conn)
        self._watch = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)

    def _version(self) -> int:
        assert self._watch is not None, "the store is open"
        (version,) = self._watch.execute("PRAGMA data_version").fetchone()
        return int(version)

    def _close(self) -> None:
        self._writing.shutdown()
        self._reading.shutdown()
        self._writer.dispose()
        self._readers.dispose()
        if self._watch is not None:
            self._watch.close()


def _engine(path: Path, begin: str, connections: int) -> Engine:
    """Return an engine whose transactions open with `begin`, on up to `connections` connections."""
    engine = create_engine(
        f"sqlite+pysqlite:///{path}",
        pool_size=connections,
        max_overflow=0,
        connect_args={"timeout": BUSY_TIMEOUT_S, "check_same_thread": False, "isolation_level": None},
    )

    @event.listens_for(engine, "connect")
    def _configure(dbapi_connection: sqlite3.Connection, _record: Any) -> None:
        for pragma in _PRAGMAS:
            dbapi_connection.execute(pragma)

    @event.listens_for(engine, "begin")
    def _begin(conn: Connection) -> None:
        conn.exec_driver_sql(begin)

    return engine


def _translated(error: DBAPIError | sqlite3.Error) -> Exception:
    """Return what a database error means to a caller; a refused constraint is a fault of ours and stays what it is."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    if not isinstance(cause, sqlite3.OperationalError | sqlite3.DatabaseError) or isinstance(
        cause, sqlite3.IntegrityError | sqlite3.ProgrammingError
    ):
        return error
    code = getattr(cause, "sqlite_errorcode", 0) & _PRIMARY_CODE
    if code in _FULL_CODES:
        return StoreFull(f"the database takes no more: {cause}")
    if code == sqlite3.SQLITE_ERROR:
        return error
    return StoreUnavailable(f"the database cannot be used: {cause}")
