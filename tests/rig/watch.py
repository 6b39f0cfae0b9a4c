"""How long dead workers' chunks wait: looks at the database beside the server and times what it sees.

For each kill of an extra worker (no supervisor saw it die) it notes the chunks that worker held, and waits until each is
claimed under a newer attempt, or closed. Its figure is compared with the lease: nothing else frees such a chunk.
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
    """Times taken so far, in seconds, of kills after which chunks had to be freed."""

    server: Server
    times_s: list[float] = field(default_factory=list)
    disturbed: int = 0
    stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

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
        while not self.stop.is_set() and time.monotonic() - begun < GIVE_UP_S:
            with contextlib.suppress(sqlite3.Error), closing(database(self.server.data)) as rows:
                keys = ",".join(map(str, held))
                found = rows.execute(f"SELECT key, attempt, state FROM chunk WHERE key IN ({keys})").fetchall()
                if all(
                    state == "closed" or (state == "leased" and attempt > held[key]) for key, attempt, state in found
                ):
                    self.times_s.append(time.monotonic() - begun)
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
