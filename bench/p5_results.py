"""P5: the results of a run of 20 s replies, streamed / the same server sending a constant chunk.

Lays out two batches as such a run leaves them: every second each worker commits one segment with the few lines that
finished in it, from all the chunks it has in flight. One of them is as upkeep leaves it seconds after its end, merged;
the other as it is in the moment of its end. One server process, put together as `lowtide serve` does, answers all sides
without compression; this process reads them by turns over a socket, while another process commits results of a third
batch. Prints a line for each of the two: the ratio (median and range), the same of the server's processor time over all
repeats (which holds on a busy machine too), MB/s, first byte, growth of the server's anonymous memory, how much slower
the third batch's commits were, and what limits the ratio.

    python bench/p5_results.py [--results N] [--in-flight S] [--repeats R] [--data DIR (kept, used again)]
"""

import argparse
import asyncio
import multiprocessing
import random
import re
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import uvloop
from starlette.types import Receive, Scope, Send

from lowtide.api.app import create_app
from lowtide.app.compose import api_parts
from lowtide.app.http_server import server
from lowtide.app.settings import Settings, UpkeepSettings
from lowtide.ports.clock import SystemClock
from lowtide.ports.metadata import Claimed
from lowtide.storage.local_objects import LocalObjects
from lowtide.storage.sqlite import SqliteStore
from lowtide.upkeep.merge import MERGED_BLOCKS_MIN, Merger

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.batches import Batches, Outcomes

REPLY_S = 20
TEXT_BYTES = 1300
CHUNK = b"x" * (512 * 1024)
BESIDE_COMMITS_PER_S = 10
RECEIVE_BYTES = 1024 * 1024
NEVER = 2**31
LIMITS = {
    "merged": "reading and proving 1 MiB at a time, and one copy to the socket, which the constant needs too",
    "unmerged": "opening, reading and proving a file for every 18 kB",
}
"""What limits each side, as a profile of the server shows it."""

_spawn = multiprocessing.get_context("spawn")


@asynccontextmanager
async def opened(directory: Path) -> AsyncIterator[tuple[SqliteStore, LocalObjects]]:
    """Open the store and the objects of a data directory."""
    store = SqliteStore(directory / "lowtide.db", SystemClock())
    await store.open()
    try:
        yield store, LocalObjects(directory / "objects")
    finally:
        await store.close()


# ------------------------------------------------------------------------------------------- the layout


class Run:
    """Commits a batch's results second by second, as a worker with `in_flight` replies of 20 s each would."""

    def __init__(self, batches: Batches, session: str, in_flight: int) -> None:
        self._batches = batches
        self._session = session
        self._in_flight = in_flight
        self._random = random.Random(1)
        self._number = 0

    async def commit_seconds(self, count: int) -> AsyncIterator[float]:
        """Create a batch of `count` requests and commit it; yields how long each second's commit took."""
        batch = await self._batches.create(count)
        self.batch_id = batch.id
        session = await self._batches.store.open_session(self._session, 3600)
        held = await self._batches.claim(session, batch)
        waiting = [(chunk, index) for chunk in held for index in range(chunk.size)]
        waiting.reverse()
        running: list[tuple[Claimed, int]] = []
        while waiting or running:
            while waiting and len(running) < self._in_flight:
                running.append(waiting.pop())
            self._random.shuffle(running)
            finished = [running.pop() for _ in range(min(len(running), round(self._in_flight / REPLY_S)))]
            started = time.perf_counter()
            await self._batches.commit(session, self._number, self._found(finished))
            yield time.perf_counter() - started
            self._number += 1

    def _found(self, finished: list[tuple[Claimed, int]]) -> list[Outcomes]:
        chunks = {chunk.key: chunk for chunk, _ in finished}
        return [
            self._batches.outcomes(
                chunk, text_bytes=TEXT_BYTES, indexes=[index for one, index in finished if one.key == key]
            )
            for key, chunk in chunks.items()
        ]


async def lay_out(directory: Path, results: int, in_flight: int, state: str) -> str:
    """Return the id of a batch laid out in `directory`, made now unless it is there already."""
    marker = directory / f"p5-{results}-{in_flight}-{state}"
    if not marker.exists():
        async with opened(directory) as (store, objects):
            run = Run(Batches(store, objects), state, in_flight)
            async for _ in run.commit_seconds(results):
                pass
            merger = Merger(store, objects, MERGED_BLOCKS_MIN if state == "merged" else NEVER)
            while await merger.step():
                pass
            marker.write_text(run.batch_id)
    return marker.read_text()


def commit_beside(directory: Path, times: Connection) -> None:
    """Commit results of a second batch, paced, and send how long each commit took; a process of its own."""

    async def commit() -> None:
        async with opened(directory) as (store, objects):
            async for took_s in Run(Batches(store, objects), "beside", 256).commit_seconds(100_000):
                times.send(took_s)
                await asyncio.sleep(1 / BESIDE_COMMITS_PER_S)

    asyncio.run(commit())


# ------------------------------------------------------------------------------------------- the server


def serve(directory: Path, length: int, listener: socket.socket) -> None:
    """Serve the API as `lowtide serve` does, and a constant body of `length` bytes at /constant, without middleware."""

    async def run() -> None:
        settings = Settings(data=directory, upkeep=UpkeepSettings(merge_blocks_min=NEVER))
        async with api_parts(settings) as (services, upkeep):
            api = create_app(services)

            async def app(scope: Scope, receive: Receive, send: Send) -> None:
                await (constant if scope["path"] == "/constant" else api)(scope, receive, send)

            stop = asyncio.Event()
            keeping = asyncio.create_task(upkeep.run(stop))
            await server(app, settings.http, grace_s=1).serve(sockets=[listener])
            stop.set()
            await keeping

    async def constant(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(length // len(CHUNK)):
            await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
        await send({"type": "http.response.body", "body": CHUNK[: length % len(CHUNK)]})

    uvloop.run(run())


@contextmanager
def process(target: Callable[..., None], *args: object) -> Iterator[int]:
    """Run `target` in a process of its own; yields its id."""
    child = _spawn.Process(target=target, args=args, daemon=True)
    child.start()
    assert child.pid is not None
    try:
        yield child.pid
    finally:
        child.terminate()
        child.join()


# ------------------------------------------------------------------------------------------- the client


@dataclass(frozen=True, slots=True)
class Download:
    """One download: its bytes on the wire, the seconds it took, and those to its first byte of a body."""

    length: int
    took_s: float
    first_s: float

    @property
    def mb_per_s(self) -> float:
        return self.length / self.took_s / 1e6


def download(address: tuple[str, int], path: str) -> Download:
    """Read one reply to its end and throw it away."""
    head = f"GET {path} HTTP/1.1\r\nhost: p5\r\nx-api-key: p5\r\nanthropic-version: 2023-06-01\r\nconnection: close"
    buffer = bytearray(RECEIVE_BYTES)
    with socket.create_connection(address) as connection:
        started = time.perf_counter()
        connection.sendall(f"{head}\r\n\r\n".encode())
        seen = b""
        while b"\r\n\r\n" not in seen or seen.endswith(b"\r\n\r\n"):
            seen += connection.recv(65536)
        first_s = time.perf_counter() - started
        assert b" 200 " in seen[:20], seen[:500]
        last, length = seen, len(seen)
        while received := connection.recv_into(buffer):
            length += received
            last = bytes(buffer[max(0, received - 5) : received])
        took_s = time.perf_counter() - started
    assert last.endswith(b"0\r\n\r\n"), "the reply was cut short"
    return Download(length, took_s, first_s)


class MemoryWatch(threading.Thread):
    """Samples the anonymous memory of a process; `peak_kib` is the most seen since it was last set."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._status = Path(f"/proc/{pid}/status")
        self.peak_kib = 0
        self._done = threading.Event()

    def now_kib(self) -> int:
        found = re.search(r"RssAnon:\s+(\d+)", self._status.read_text())
        assert found is not None
        return int(found[1])

    def run(self) -> None:
        while not self._done.wait(0.01):
            self.peak_kib = max(self.peak_kib, self.now_kib())

    def stop(self) -> None:
        self._done.set()
        self.join()


@dataclass
class Figures:
    """What the repeats gave, for one of the two batches."""

    state: str
    results: list[Download] = field(default_factory=list)
    constant: list[Download] = field(default_factory=list)
    results_ns: int = 0
    constant_ns: int = 0
    growth_kib: int = 0
    beside_alone_s: list[float] = field(default_factory=list)
    beside_s: list[float] = field(default_factory=list)

    def line(self) -> str:
        ratios = [ours.mb_per_s / theirs.mb_per_s for ours, theirs in zip(self.results, self.constant, strict=True)]
        slowed = statistics.median(self.beside_s) / statistics.median(self.beside_alone_s) - 1
        return (
            f"P5 {self.state}: results/constant {_spread(ratios, '.2f')}"
            f" | of processor time {self.constant_ns / self.results_ns:.2f}"
            f" | results {_spread([one.mb_per_s for one in self.results], '.0f')} MB/s"
            f" | constant {_spread([one.mb_per_s for one in self.constant], '.0f')} MB/s"
            f" | first byte {_spread([one.first_s * 1000 for one in self.results], '.1f')} ms"
            f" | RssAnon growth {self.growth_kib / 1024:.1f} MiB"
            f" | commits of the other batch {statistics.median(self.beside_alone_s) * 1000:.1f} ms alone, {slowed:+.0%}"
            f" | limited by {LIMITS[self.state]}"
        )


def processor_ns(pid: int) -> int:
    """Return the time that the threads of a process have run."""
    return sum(int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir())


def _spread(values: list[float], form: str) -> str:
    return f"{statistics.median(values):{form}} ({min(values):{form}}-{max(values):{form}})"


def measure(address: tuple[str, int], ids: dict[str, str], pid: int, directory: Path, repeats: int) -> list[Figures]:
    """Read all sides by turns while a third batch runs."""
    sides = [Figures(state) for state in ids]
    watch = MemoryWatch(pid)
    for _ in range(2):
        download(address, "/constant")
    watch.start()
    times, sender = _spawn.Pipe(duplex=False)
    with process(commit_beside, directory, sender):
        alone_s = [times.recv() for _ in range(3 * BESIDE_COMMITS_PER_S)]
        for _ in range(repeats):
            for figures in sides:
                _drain(times)
                before_kib, before_ns = watch.now_kib(), processor_ns(pid)
                watch.peak_kib = before_kib
                figures.results.append(download(address, f"/v1/messages/batches/{ids[figures.state]}/results"))
                figures.growth_kib = max(figures.growth_kib, watch.peak_kib - before_kib)
                figures.beside_s += _drain(times)
                between_ns = processor_ns(pid)
                figures.constant.append(download(address, "/constant"))
                figures.results_ns += between_ns - before_ns
                figures.constant_ns += processor_ns(pid) - between_ns
                alone_s += [times.recv() for _ in range(BESIDE_COMMITS_PER_S)][2:]
    watch.stop()
    for figures in sides:
        figures.beside_alone_s = alone_s
    return sides


def _drain(times: Connection) -> list[float]:
    found = []
    while times.poll():
        found.append(times.recv())
    return found


def main() -> None:
    """Lay out, serve, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--results", type=int, default=100_000)
    parser.add_argument("--in-flight", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--data", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        directory = given.data or Path(temporary)
        directory.mkdir(parents=True, exist_ok=True)
        ids = {
            state: asyncio.run(lay_out(directory, given.results, given.in_flight, state))
            for state in ("merged", "unmerged")
        }
        with socket.create_server(("127.0.0.1", 0)) as listener:
            length = given.results * (TEXT_BYTES + 120)
            with process(serve, directory, length, listener) as pid:
                for figures in measure(listener.getsockname(), ids, pid, directory, given.repeats):
                    print(figures.line())


if __name__ == "__main__":
    main()
