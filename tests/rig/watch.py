"""How long dead workers' chunks wait: looks at the database beside the server and times what it sees.

For each kill of an extra worker (no supervisor saw it die) it notes the chunks that worker held, and waits until none is
its own any more (freed), and until each is claimed under a newer attempt, or closed (taken). Only the lease frees them.
"""

import contextlib
import sqlite3
import threading
import time
from contextlib import closing
from dataclasses import dataclass, field

from tests.rig.auditor import database
from tests.rig.server import Server

LOOK_S = 0.02
GIVE_UP_S = 60.0


@dataclass
class Watch:
    """The times so far, in seconds, one for each kill after which chunks had to be freed."""

    server: Server
    freed_s: list[float] = field(default_factory=list)
    taken_s: list[float] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def session_of(self, pid: int) -> str | None:
        """Return the session of the extra worker `pid`."""
        with contextlib.suppress(sqlite3.Error), closing(database(self.server.data)) as rows:
            row = rows.execute("SELECT id FROM session WHERE worker LIKE ?", (f"worker-{pid}-%",)).fetchone()
            return None if row is None else str(row[0])
        return None

    def before_kill(self, pid: int) -> dict[int, int]:
        """Return the chunks, with their attempts, that the extra worker `pid` holds."""
        with contextlib.suppress(sqlite3.Error), closing(database(self.server.data)) as rows:
            return dict(
                rows.execute(
                    "SELECT c.key, c.attempt FROM chunk c JOIN session s ON s.id = c.session"
                    " WHERE s.worker LIKE ? AND c.state = 'leased'",
                    (f"worker-{pid}-%",),
                ).fetchall()
            )
        return {}

    def after_kill(self, held: dict[int, int]) -> None:
        """Time, beside everything else, how long it takes until `held` are all taken again."""
        thread = threading.Thread(target=self._time, args=(held, time.monotonic()), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _time(self, held: dict[int, int], begun: float) -> None:
        keys, freed = ",".join(map(str, held)), False
        while not self.stop.is_set() and time.monotonic() - begun < GIVE_UP_S:
            with contextlib.suppress(sqlite3.Error), closing(database(self.server.data)) as rows:
                found = rows.execute(f"SELECT key, attempt, state FROM chunk WHERE key IN ({keys})").fetchall()
                waited_s = time.monotonic() - begun
                if not freed and all(state != "leased" or attempt > held[key] for key, attempt, state in found):
                    freed = True
                    self.freed_s.append(waited_s)
                if all(state == "closed" or attempt > held[key] for key, attempt, state in found):
                    self.taken_s.append(waited_s)
                    return
            self.stop.wait(LOOK_S)

    def finish(self) -> None:
        """Stop watching."""
        self.stop.set()
        for thread in self._threads:
            thread.join()


def percentile(times_s: list[float], share: float) -> float:
    """Return the smallest time that `share` of all do not pass; 0 if there are none."""
    if not times_s:
        return 0.0
    ordered = sorted(times_s)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
