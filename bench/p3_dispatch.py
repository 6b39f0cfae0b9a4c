"""P3: a batch dispatched end to end and durable / a bare loop on the fastest maintained HTTP library that stores nothing.

A zero-delay upstream has one core, the client the other. Ours is a worker on SQLite and local objects that runs a
stored batch until it has ended; the peer (`peers.bare_pycurl`) posts the same bodies and drops the replies. Both sides
run by turns. Prints one line: the ratio (median and range), both rates, and the CPU time of each of our requests.

    python bench/p3_dispatch.py [--requests N] [--in-flight S] [--repeats R] [--profile FILE]
"""

import argparse
import asyncio
import cProfile
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import uvloop

from lowtide.dispatch.settings import WorkerSettings
from lowtide.dispatch.worker import Worker
from lowtide.domain.outcomes import Counts
from lowtide.domain.states import BatchState
from lowtide.ports.clock import SystemClock
from lowtide.storage.local_objects import LocalObjects
from lowtide.storage.sqlite import SqliteStore
from lowtide.upstreams.config import UpstreamConfig
from lowtide.upstreams.messages import MessagesUpstream
from peers import bare_pycurl

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.batches import Batches

BODY = b'{"model":"simulated","max_tokens":1024,"messages":[{"role":"user","content":"%b"}]}' % (b"tell me more " * 155)


@dataclass(frozen=True)
class Run:
    """How long one side took, and its CPU seconds."""

    wall_s: float
    cpu_s: float


async def dispatch(directory: Path, port: int, count: int, in_flight: int) -> Run:
    """Run a stored batch of `count` requests to its end."""
    clock = SystemClock()
    store = SqliteStore(directory / "lowtide.db", clock)
    objects = LocalObjects(directory / "objects")
    await store.open()
    batch = await Batches(store, objects).create(count, params=BODY)
    upstream = MessagesUpstream(UpstreamConfig(name="bench", url=f"http://127.0.0.1:{port}", in_flight_max=in_flight))
    worker = Worker("bench", store, objects, [upstream], WorkerSettings(), clock)
    stop = asyncio.Event()
    started_s, cpu_s = time.perf_counter(), _cpu_s()
    running = asyncio.create_task(worker.run(stop))
    while True:
        await store.changed(0.05)
        found = await store.get_batch(batch.workspace, batch.id)
        assert found is not None
        if found.state is BatchState.ENDED:
            break
    run = Run(time.perf_counter() - started_s, _cpu_s() - cpu_s)
    assert found.counts == Counts(succeeded=count), found.counts
    stop.set()
    await running
    await upstream.close()
    await store.close()
    return run


def ours(port: int, count: int, in_flight: int, profile: str | None) -> Run:
    """Run our side once in a fresh directory."""
    with tempfile.TemporaryDirectory(dir=Path.cwd() / ".cache") as directory:
        profiler = cProfile.Profile()
        if profile:
            profiler.enable()
        run = uvloop.run(dispatch(Path(directory), port, count, in_flight))
        if profile:
            profiler.disable()
            profiler.dump_stats(profile)
    return run


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Run both sides in turn and print the line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=50_000)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--profile", help="write a cProfile of our side here; the figures are then no good")
    args = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    Path(".cache").mkdir(exist_ok=True)
    server = subprocess.Popen([sys.executable, Path(__file__).parent / "servers.py"], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        os.sched_setaffinity(server.pid, {cores[0]})
        os.sched_setaffinity(0, {cores[-1]})
        url, bodies = f"http://127.0.0.1:{port}/v1/messages", [BODY] * args.requests
        pairs: list[tuple[float, float]] = []
        cpu_s: list[float] = []
        for _ in range(args.repeats):
            peer = args.requests / bare_pycurl(url, bodies, args.in_flight)
            run = ours(port, args.requests, args.in_flight, args.profile)
            pairs.append((args.requests / run.wall_s, peer))
            cpu_s.append(run.cpu_s / args.requests)
    finally:
        server.kill()
        server.wait()
    ratios = [mine / peer for mine, peer in pairs]
    mine, peer = (statistics.median(side) for side in zip(*pairs, strict=True))
    print(
        f"P3 dispatch, {args.in_flight} in flight: {statistics.median(ratios):.2f} of the bare loop "
        f"({min(ratios):.2f} to {max(ratios):.2f}; {mine:,.0f}/s against {peer:,.0f}/s; "
        f"{statistics.median(cpu_s) * 1e6:.0f} us of CPU each; {args.requests:,} requests, {args.repeats} repeats)"
    )


if __name__ == "__main__":
    main()
