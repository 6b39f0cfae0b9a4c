"""A Lowtide on a real socket, in a thread of its own: real SQLite, real files, real uvicorn, real upkeep.

Batches are ended by committing results straight through the ports, so that a test chooses each request's outcome.
"""

import asyncio
import http.client
import json
import socket
import threading
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import uvloop

from lowtide.api.app import create_app
from lowtide.api.rates import Buckets
from lowtide.api.services import Services
from lowtide.api.watch import Live
from lowtide.app.http_server import server
from lowtide.app.settings import HttpSettings
from lowtide.dispatch.settings import WorkerSettings
from lowtide.dispatch.worker import Worker
from lowtide.domain.chunks import decode_requests
from lowtide.domain.errors import ErrorType
from lowtide.domain.ids import DEFAULT_WORKSPACE, RUN, new_id
from lowtide.domain.limits import Limits
from lowtide.domain.lines import error_result, errored_line, one_line, succeeded_line
from lowtide.domain.states import BatchState
from lowtide.intake.create import Intake
from lowtide.ports.metadata import Batch, Claimed, Session
from lowtide.ports.upstream import Upstream
from lowtide.results.reader import Results
from lowtide.storage.local_objects import LocalObjects
from lowtide.storage.sqlite import SqliteStore
from lowtide.upkeep.loops import Upkeep, UpkeepIntervals
from support.batches import Outcomes, TurnedClock, segment

Value = TypeVar("Value")
HEADERS = {"x-api-key": "test-key", "anthropic-version": "2023-06-01"}
MESSAGE = (
    b'{"model":"m","id":"msg_01","type":"message","role":"assistant","content":[{"type":"text","text":"%b"}],'
    b'"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":2,"output_tokens":3,"service_tier":"batch"}}'
)
SMALL = Limits(requests_max=50, body_bytes_max=64 * 1024, message_bytes_max=16 * 1024)
"""Limits low enough for a test to pass them."""


@dataclass(frozen=True)
class Answer:
    """What came back: header names are lower case, in the order of the wire."""

    status: int
    headers: Mapping[str, str]
    lines: Sequence[tuple[str, str]]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> tuple[int, str, str]:
        """The status, the type and the text of an error in the contract's envelope, which is checked."""
        envelope = self.json()
        assert list(envelope) == ["type", "error", "request_id"]
        assert envelope["type"] == "error"
        assert list(envelope["error"]) == ["type", "message"]
        assert envelope["request_id"] == self.headers["request-id"]
        assert self.headers["content-type"] == "application/json"
        return self.status, envelope["error"]["type"], envelope["error"]["message"]


def requests(*custom_ids: str, **params: Any) -> bytes:
    """Return the body of a create with these requests."""
    params = {"model": "m", "max_tokens": 8, "messages": [{"role": "user", "content": "hi"}]} | params
    return json.dumps({"requests": [{"custom_id": name, "params": params} for name in custom_ids]}).encode()


@dataclass
class Served:
    """Enter it to start serving `data`, leave it to stop."""

    data: Path
    upstreams: Callable[[], Sequence[Upstream]] = lambda: ()
    limits: Limits = field(default_factory=Limits)
    public_url: str | None = None
    trusted_proxies: Sequence[IPv4Network | IPv6Network] = ()
    upkeep: bool = True
    """Off, a canceling batch stays so for as long as a test looks at it."""
    worker: bool = False
    """On, a worker runs what is created."""

    def __enter__(self) -> Self:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.clock = TurnedClock()
        self._ready = threading.Event()
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._serve, name="lowtide")
        self._thread.start()
        assert self._ready.wait(30)
        if self._failed is not None:
            self._thread.join()
            raise self._failed
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop)
        self._thread.join()

    def run(self, work: Coroutine[Any, Any, Value]) -> Value:
        """Run `work` in the server's loop and return what it returns."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    # -- as a client
    def call(
        self,
        method: str,
        path: str,
        body: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str | None] | None = None,
    ) -> Answer:
        """Make one call on a connection of its own; a header of None leaves a default one out.

        A body in pieces is sent chunked.
        """
        wanted = {name: value for name, value in {**HEADERS, **(headers or {})}.items() if value is not None}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, wanted)
            response = connection.getresponse()
            lines = [(name.lower(), value) for name, value in response.getheaders()]
            return Answer(response.status, dict(lines), lines, response.read())
        finally:
            connection.close()

    def create(self, *custom_ids: str, headers: Mapping[str, str | None] | None = None) -> str:
        """Create a batch with these requests and return its id."""
        answer = self.call("POST", "/v1/messages/batches", requests(*custom_ids or ("a", "b")), headers)
        assert answer.status == 200, answer.body
        return str(answer.json()["id"])

    def exchange(self, sent: bytes) -> bytes:
        """Send bytes as they are, and return all that comes until the server closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as connection:
            connection.sendall(sent)
            return b"".join(iter(lambda: connection.recv(65536), b""))

    # -- as a worker
    def finish(self, batch_id: str, texts: Mapping[str, str] | None = None, *, errored: Sequence[str] = ()) -> Batch:
        """End a batch: every request succeeds (with these texts), but for those `errored`."""
        return self.run(self._finish(batch_id, texts or {}, errored))

    def resolve(self, batch_id: str, names: Sequence[str]) -> None:
        """Let these requests of a batch succeed; the others stay as they are."""

        async def resolve() -> None:
            await self._commit(batch_id, {}, (), names)

        self.run(resolve())

    def batch(self, batch_id: str) -> Batch:
        """Return the batch as its row says."""
        batch = self.run(self.store.get_batch(DEFAULT_WORKSPACE, batch_id))
        assert batch is not None
        return batch

    def kept_headers(self, batch_id: str) -> Mapping[str, str]:
        """Return the headers that were kept with a batch in progress, as a worker gets them."""

        async def look() -> Mapping[str, str]:
            session = await self.store.open_session("looker", 60)
            (chunk, *_) = await self._claim(session, batch_id)
            await self.store.end_session(session.id)
            return chunk.headers

        return self.run(look())

    def wait_ended(self, batch_id: str) -> Batch:
        """Wait until upkeep has ended a batch, and return it."""

        async def wait() -> Batch:
            while True:
                batch = await self.store.get_batch(DEFAULT_WORKSPACE, batch_id)
                if batch is not None and batch.state is BatchState.ENDED:
                    return batch
                await self.store.changed(1)

        return self.run(asyncio.wait_for(wait(), 60))

    async def _finish(self, batch_id: str, texts: Mapping[str, str], errored: Sequence[str]) -> Batch:
        await self._commit(batch_id, texts, errored, None)
        batch = await self.store.get_batch(DEFAULT_WORKSPACE, batch_id)
        assert batch is not None
        assert batch.state is BatchState.ENDED
        return batch

    async def _commit(
        self, batch_id: str, texts: Mapping[str, str], errored: Sequence[str], only: Sequence[str] | None
    ) -> None:
        session = await self.store.open_session("finisher", 60)
        chunks = await self._claim(session, batch_id)
        found = [await self._outcomes(chunk, texts, errored, only) for chunk in chunks]
        commit, pieces = segment(session, 0, found)
        await self.objects.put(commit.segment_key, pieces)
        await self.store.commit(commit)
        await self.store.end_session(session.id)

    async def _claim(self, session: Session, batch_id: str) -> list[Claimed]:
        batch_key = next(one.batch_key for one in await self.store.backlogs() if one.batch_id == batch_id)
        keys = [chunk.key for chunk in await self.store.open_chunks(batch_key, 0, 10_000)]
        return sorted(await self.store.claim(session.id, keys), key=lambda chunk: chunk.key)

    async def _outcomes(
        self, chunk: Claimed, texts: Mapping[str, str], errored: Sequence[str], only: Sequence[str] | None
    ) -> Outcomes:
        data = await self.objects.read(chunk.request_key, chunk.offset, chunk.length)
        outcomes = Outcomes(chunk, {}, {})
        for request in decode_requests(data, chunk.head_length, chunk.head_checksum, chunk.resolved):
            if only is not None and request.custom_id not in only:
                continue
            if request.custom_id in errored:
                error = error_result(ErrorType.API, "It broke", new_id(RUN))
                outcomes.errored[request.index] = errored_line(request.custom_id, error)
            else:
                text = json.dumps(texts.get(request.custom_id, "ok"), ensure_ascii=False)[1:-1]
                message = one_line(MESSAGE % text.encode())
                outcomes.succeeded[request.index] = succeeded_line(request.custom_id, message)
        return outcomes

    # -- the thread
    def _serve(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            try:
                runner.run(self._main())
            except BaseException as error:  # noqa: BLE001 handed over to the thread that waits
                self._failed = error
                self._ready.set()

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        spool = self.data / "spool"
        spool.mkdir(parents=True)
        self.store = SqliteStore(self.data / "lowtide.db", self.clock)
        self.objects = LocalObjects(self.data / "objects")
        await self.store.open()
        upstreams = self.upstreams()
        try:
            await self._run(spool, upstreams)
        finally:
            for upstream in upstreams:
                await upstream.close()
            await self.store.close()

    async def _run(self, spool: Path, upstreams: Sequence[Upstream]) -> None:
        self.live = Live(self.store, upstreams, self.clock, look_s=0.05)
        services = Services(
            store=self.store,
            access=self.store,
            budget=Buckets(),
            objects=self.objects,
            intake=Intake(self.store, self.objects, self.limits, spool),
            results=Results(self.store, self.objects),
            live=self.live,
            upstreams=upstreams,
            clock=self.clock,
            limits=self.limits,
            public_url=self.public_url,
            trusted_proxies=self.trusted_proxies,
            ready=self.store.check,
        )
        self._server = server(create_app(services), HttpSettings(), grace_s=5)
        upkeep = Upkeep(
            self.store, self.objects, self.clock, self.limits, UpkeepIntervals(close_s=0.05, expire_grace_s=0)
        )
        async with asyncio.TaskGroup() as tasks:
            if self.worker:
                settings = WorkerSettings(lease_s=2, commit_interval_s=0.05, idle_poll_s=0.1, backoff_s=0.01)
                worker = Worker("worker", self.store, self.objects, upstreams, settings, self.clock)
                tasks.create_task(worker.run(self._stopping))
            if self.upkeep:
                tasks.create_task(upkeep.run(self._stopping))
            tasks.create_task(self._server.serve(sockets=[self.socket]))
            self._ready.set()

    def _stop(self) -> None:
        self._server.should_exit = True
        self._stopping.set()
