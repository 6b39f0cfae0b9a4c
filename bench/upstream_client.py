"""How close our upstream driver comes to the bare loop: requests/s at 64 and 256 in flight, zero-delay server.

    python bench/upstream_client.py [repeats] [requests]

Prints one line for each concurrency: the ratio (median of interleaved repeats), both sides' rates, and the CPU time that
each side's process spent on a request, which says the same on a machine that others load.
"""

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import uvloop

from lowtide.upstreams.config import UpstreamConfig
from lowtide.upstreams.messages import MessagesUpstream
from peers import bare_pycurl

BODY = b'{"model":"simulated","max_tokens":1024,"messages":[{"role":"user","content":"%b"}]}' % (b"tell me more " * 155)
HEADERS = {"anthropic-version": "2023-06-01"}


async def _send_all(port: int, bodies: Sequence[bytes], in_flight: int) -> float:
    upstream = MessagesUpstream(UpstreamConfig(name="bench", url=f"http://127.0.0.1:{port}", in_flight_max=in_flight))
    waiting = iter(bodies)

    async def sender(waiting: Iterator[bytes]) -> None:
        for body in waiting:
            reply = await upstream.send(body, HEADERS, 600.0)
            assert reply.status == 200

    started = time.perf_counter()
    await asyncio.gather(*(sender(waiting) for _ in range(in_flight)))
    elapsed_s = time.perf_counter() - started
    await upstream.close()
    return elapsed_s


def ours(port: int, bodies: Sequence[bytes], in_flight: int) -> float:
    """Send every body through MessagesUpstream and return the seconds it took."""
    return uvloop.run(_send_all(port, bodies, in_flight))


def main() -> None:
    """Run both sides in turn and print the ratios."""
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 20_000
    server = subprocess.Popen([sys.executable, Path(__file__).parent / "servers.py"], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        bodies = [BODY] * count
        for in_flight in (64, 256):
            rates: list[tuple[float, float]] = []
            costs_us: list[tuple[float, float]] = []
            for _ in range(repeats):
                cpu_s = [time.process_time()]
                peer = count / bare_pycurl(f"http://127.0.0.1:{port}/v1/messages", bodies, in_flight)
                cpu_s.append(time.process_time())
                rates.append((count / ours(port, bodies, in_flight), peer))
                cpu_s.append(time.process_time())
                costs_us.append(((cpu_s[2] - cpu_s[1]) * 1e6 / count, (cpu_s[1] - cpu_s[0]) * 1e6 / count))
            ratios = [mine / peer for mine, peer in rates]
            mine, peer = (statistics.median(side) for side in zip(*rates, strict=True))
            mine_us, peer_us = (statistics.median(side) for side in zip(*costs_us, strict=True))
            print(
                f"upstream client, {in_flight} in flight: {statistics.median(ratios):.2f} of the bare loop "
                f"({min(ratios):.2f} to {max(ratios):.2f}; {mine:,.0f}/s against {peer:,.0f}/s; "
                f"CPU {mine_us:.0f} us against {peer_us:.0f} us a request; {repeats} repeats)"
            )
    finally:
        server.kill()
        server.wait()


if __name__ == "__main__":
    main()
