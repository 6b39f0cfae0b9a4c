"""A create of 100,000 requests / 256 MB, its run on the simulated engine, and its results, with the memory of each process.

Real processes as a user starts them: `lowtide simulate` and `lowtide serve`. Prints one line per stage: how long it took
and the peak of anonymous memory of each process.

    python bench/whole_batch.py [--in-flight S] [--speed X]
"""

import argparse
import http.client
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from p4_intake import BODY_BYTES, REQUESTS, write_body

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.memory import MemoryWatch
from support.simulated import simulated

HEADERS = {"x-api-key": "bench", "anthropic-version": "2023-06-01", "content-type": "application/json"}
LOWTIDE = [sys.executable, "-m", "lowtide"]


class Served:
    """A running `lowtide serve`."""

    def __init__(self, directory: Path, upstream: str, in_flight: int) -> None:
        config = directory / "lowtide.toml"
        config.write_text(f'[[upstreams]]\nname = "simulated"\nurl = "{upstream}"\nin_flight_max = {in_flight}\n')
        self.log = directory / "serve.log"
        command = [*LOWTIDE, "serve", "--config", str(config), "--port", "0", "--data", str(directory / "data")]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        self.port = self._port()
        self.names = {self.process.pid: "supervisor"} | {
            entry["pid"]: entry["kind"] for entry in self._events() if entry["event"] == "child.started"
        }

    def _port(self) -> int:
        for _ in range(600):
            found = re.search(r"answers on http://[^:]+:(\d+)", self.log.read_text())
            if found and '"api.started"' in self.log.read_text() and '"session.opened"' in self.log.read_text():
                return int(found[1])
            time.sleep(0.1)
        raise RuntimeError(self.log.read_text())

    def _events(self) -> Iterator[dict[str, object]]:
        for line in self.log.read_text().splitlines():
            if line.startswith("{"):
                yield json.loads(line)

    def call(self, method: str, path: str, body: Path | None = None) -> http.client.HTTPResponse:
        """Make one call; a body is streamed from its file."""
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        headers = HEADERS | ({} if body is None else {"content-length": str(body.stat().st_size)})
        if body is None:
            client.request(method, path, headers=headers)
        else:
            with body.open("rb") as file:
                client.request(method, path, body=file, headers=headers)
        return client.getresponse()


@contextmanager
def stage(name: str, served: Served) -> Iterator[Counter[str]]:
    """Time a stage and print what it took; the yielded counter holds what else is to be said."""
    said: Counter[str] = Counter()
    started_s = time.perf_counter()
    with MemoryWatch(served.process.pid, served.names) as watch:
        yield said
    peaks = ", ".join(f"{who} {size / 2**20:.0f}" for who, size in sorted(watch.peaks_bytes.items()))
    more = "".join(f"; {key} {value:,}" for key, value in said.items())
    print(
        f"{name:8} {time.perf_counter() - started_s:7.2f} s{more}; anonymous memory, MiB at most: {peaks}; all together "
        f"{watch.peak_bytes / 2**20:.0f} (+{watch.growth_bytes / 2**20:.0f} in this stage)",
        flush=True,
    )


def run(served: Served, body: Path) -> None:
    """Create, wait for the end, download, and check that everything is accounted for."""
    with stage("create", served) as said:
        response = served.call("POST", "/v1/messages/batches", body)
        batch = json.loads(response.read())
        assert response.status == http.HTTPStatus.OK, batch
        said["requests"] = batch["request_counts"]["processing"]
    with stage("run", served) as said:
        while batch["processing_status"] != "ended":
            time.sleep(0.2)
            batch = json.loads(served.call("GET", f"/v1/messages/batches/{batch['id']}").read())
        said["succeeded"] = batch["request_counts"]["succeeded"]
    with stage("results", served) as said:
        response = served.call("GET", f"/v1/messages/batches/{batch['id']}/results")
        while piece := response.read(1 << 20):
            said["bytes"] += len(piece)
            said["lines"] += piece.count(b"\n")
    assert said["lines"] == batch["request_counts"]["succeeded"] == REQUESTS


def main() -> None:
    """Start everything, run, stop it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--in-flight", type=int, default=256)
    parser.add_argument("--speed", type=float, default=0.0, help="of the simulated engine; 0 answers at once")
    args = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as name,
        simulated("--speed", str(args.speed), "--max-num-seqs", "1024") as upstream,
    ):
        body = Path(name) / "body.json"
        write_body(body)
        print(f"{REQUESTS:,} requests, {BODY_BYTES / 1e6:.0f} MB; {args.in_flight} in flight")
        served = Served(Path(name), upstream, args.in_flight)
        try:
            run(served, body)
        finally:
            served.process.terminate()
            served.process.wait()


if __name__ == "__main__":
    main()
