"""How soon a killed server answers again while a million requests are open, and a dead worker's chunks are free.

`python -m tests.rig.ready --requests 1000000`. Batches are made of small requests and nothing runs them, so that all of
them stay open; the whole server is then killed and started again, several times, and `/readyz` is asked until it says 200.
"""

import argparse
import json
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.rig.api import call
from tests.rig.run import commit, spread
from tests.rig.server import Server, send, wait_gone

BATCH_REQUESTS = 100_000
READY_S = 2.0


def body_of(batch: int, size: int) -> bytes:
    """Return the body of a batch of `size` small requests."""
    message = {"role": "user", "content": "mark=none;kind=plain;"}
    params = {"model": "deep", "max_tokens": 16, "messages": [message]}
    return json.dumps(
        {"requests": [{"custom_id": f"b{batch}-{place}", "params": params} for place in range(size)]}
    ).encode()


def measure(folder: Path, requests: int, repeats: int) -> tuple[float, list[float]]:
    """Return the seconds of the first, empty start, and those of each start with `requests` open."""
    server = Server(folder, workers=0)
    try:
        server.start_upstream()
        empty_s = server.wait_ready()
        for batch in range(-(-requests // BATCH_REQUESTS)):
            body = body_of(batch, min(BATCH_REQUESTS, requests - batch * BATCH_REQUESTS))
            answer = call(server.port, "POST", "/v1/messages/batches", body, timeout_s=120)
            assert answer.status == 200, answer.body[:300]
        times_s = []
        for _ in range(repeats):
            victims = [pid for pids in server.processes().values() for pid in pids]
            for pid in victims:
                send(pid, signal.SIGKILL)
            assert server.serve is not None
            server.serve.wait()
            wait_gone(victims)
            times_s.append(server.wait_ready())
        return empty_s, times_s
    finally:
        server.close()


def main() -> int:
    """Measure once and return 1 if the server was slower than it should be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lowtide-ready-") as folder:
        began = time.monotonic()
        empty_s, times_s = measure(Path(folder), given.requests, given.repeats)
    print(
        f"ready again at {commit()} with {given.requests} open requests: {spread(times_s)}"
        f" (empty {empty_s:.2f} s; goal {READY_S} s; all in {time.monotonic() - began:.0f} s)"
    )
    return 1 if max(times_s) > READY_S else 0


if __name__ == "__main__":
    sys.exit(main())
