"""P4: a legal create of 256 MB / 100,000 requests, against a bare write + fdatasync of the same body by the same server.

    python bench/p4_intake.py [repeats]

Both sides are interleaved in one run, over a real uvicorn server on loopback. Prints the ratio of the times (bare /
create, median and range of the pairs), the growth of anonymous memory of all processes of the server while it creates,
and the longest wait of a GET that another client repeats all the while.
"""

import asyncio
import http.client
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lowtide.domain.ids import DEFAULT_WORKSPACE
from lowtide.domain.limits import Limits
from lowtide.intake.create import CreateCall, Intake
from lowtide.ports.clock import SystemClock
from lowtide.storage.local_objects import LocalObjects
from lowtide.storage.sqlite import SqliteStore

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.memory import anonymous_bytes, processes_of

REQUESTS = 100_000
BODY_BYTES = 256_000_000
SAMPLE_S = 0.005


def write_body(path: Path) -> None:
    """Write a legal body: 20 system prompts, texts of about 2.4 kB."""
    rng = random.Random(4)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(5000)]
    text = " ".join(rng.choices(words, k=200_000))
    systems = [" ".join(rng.choices(words, k=60)) for _ in range(20)]
    params = {"model": "claude-sonnet-5", "max_tokens": 256}
    room = BODY_BYTES // REQUESTS - 170
    with path.open("w", encoding="ascii") as file:
        file.write('{"requests":[')
        for number in range(REQUESTS):
            system = systems[number % len(systems)]
            start = rng.randrange(len(text) - room)
            content = text[start : start + room - len(system)]
            item = params | {"system": system, "messages": [{"role": "user", "content": content}]}
            file.write("," * bool(number))
            json.dump({"custom_id": f"request-{number:06d}", "params": item}, file, separators=(",", ":"))
        file.write("]}")


def app_in(directory: Path) -> Starlette:
    """Return a server of three routes: create, a bare write, and a ping."""
    (directory / "spool").mkdir()
    store = SqliteStore(directory / "lowtide.db", SystemClock())
    intake = Intake(
        store,
        LocalObjects(directory / "objects"),
        Limits(),
        directory / "spool",
        concurrent=2,
        spool_bytes_max=1 << 32,
        body_idle_s=30,
    )

    async def create(request: Request) -> Response:
        length = int(request.headers["content-length"])
        call = CreateCall(
            workspace=DEFAULT_WORKSPACE,
            credential="bench",
            headers={},
            body=request.stream(),
            content_length=length,
            content_encoding=None,
            idempotency_key=None,
            retry_count=0,
            gone=request.is_disconnected,
        )
        created = await intake.create(call)
        await asyncio.to_thread((directory / "objects" / created.batch.request_key).unlink)  # the disk is shared
        return JSONResponse({"total": created.batch.counts.processing})

    async def bare(request: Request) -> Response:
        path = directory / "spool" / "bare"
        with path.open("wb", buffering=0) as file:
            async for piece in request.stream():
                file.write(piece)
            await asyncio.to_thread(os.fdatasync, file.fileno())
        await asyncio.to_thread(path.unlink)
        return JSONResponse({})

    async def ping(_: Request) -> Response:
        return Response(b"")

    @asynccontextmanager
    async def life(_: Starlette) -> AsyncIterator[None]:
        await store.open()
        yield
        await store.close()

    routes = [Route("/create", create, methods=["POST"]), Route("/bare", bare, methods=["POST"]), Route("/ping", ping)]
    return Starlette(routes=routes, lifespan=life)


def serve(directory: Path) -> None:
    """Serve until killed; say the port on standard output."""
    import socket  # noqa: PLC0415 -- the server's side alone needs these two

    import uvicorn  # noqa: PLC0415

    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    print(sock.getsockname()[1], flush=True)
    config = uvicorn.Config(app_in(directory), loop="uvloop", http="httptools", log_level="warning")
    uvicorn.Server(config).run([sock])


def post_s(port: int, path: str, body: Path) -> float:
    """Send the body and return how long it took to the 200."""
    client = http.client.HTTPConnection("127.0.0.1", port)
    client.connect()
    begun = time.perf_counter()
    client.putrequest("POST", path)
    client.putheader("content-length", str(body.stat().st_size))
    client.endheaders()
    with body.open("rb") as file:
        client.sock.sendfile(file)
    response = client.getresponse()
    answer = response.read()
    taken_s = time.perf_counter() - begun
    if response.status != http.HTTPStatus.OK:
        raise RuntimeError(answer.decode())
    client.close()
    return taken_s


class Watch:
    """Samples memory and repeats a GET, each in a thread, while it is entered."""

    def __init__(self, pid: int, port: int) -> None:
        self._pid, self._port = pid, port
        self._stop = threading.Event()
        self.peak_bytes = 0
        self.waits_s: list[float] = [0.0]

    def __enter__(self) -> Self:
        self._threads = [threading.Thread(target=self._memory), threading.Thread(target=self._pings)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _memory(self) -> None:
        while not self._stop.wait(SAMPLE_S):
            self.peak_bytes = max(self.peak_bytes, anonymous_bytes(*processes_of(self._pid)))

    def _pings(self) -> None:
        client = http.client.HTTPConnection("127.0.0.1", self._port)
        while not self._stop.wait(SAMPLE_S):
            begun = time.perf_counter()
            client.request("GET", "/ping")
            client.getresponse().read()
            self.waits_s.append(time.perf_counter() - begun)
        client.close()


def measure(port: int, pid: int, body: Path, repeats: int) -> None:
    """Run both sides in turn and print the line."""
    post_s(port, "/bare", body)
    post_s(port, "/create", body)
    base = anonymous_bytes(*processes_of(pid))
    bare, create, waits, peak = [], [], [], 0
    for _ in range(repeats):
        bare.append(post_s(port, "/bare", body))
        create.append(post_s(port, "/create", body))
    with Watch(pid, port) as watch:  # apart from the timing: it takes a share of two cores
        for _ in range(2):
            post_s(port, "/create", body)
    waits, peak = watch.waits_s, watch.peak_bytes
    ratios = [one / other for one, other in zip(bare, create, strict=True)]
    print(
        f"P4 ratio {statistics.median(ratios):.2f} (range {min(ratios):.2f} to {max(ratios):.2f}, n={repeats}); "
        f"create {statistics.median(create):.2f} s ({min(create):.2f} to {max(create):.2f}), "
        f"bare {statistics.median(bare):.2f} s ({min(bare):.2f} to {max(bare):.2f}); "
        f"anonymous memory +{(peak - base) / 2**20:.0f} MiB over {base / 2**20:.0f}; "
        f"longest GET {max(waits) * 1000:.0f} ms of {len(waits)}"
    )


def main() -> None:
    """Start the server, measure, stop it."""
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as name:
        directory = Path(name)
        body = directory / "body.json"
        write_body(body)
        server = subprocess.Popen([sys.executable, __file__, "serve", name], stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            measure(int(server.stdout.readline()), server.pid, body, repeats)
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(Path(sys.argv[2]))
    else:
        main()
