"""The driver of any server of `/v1/messages`: Anthropic, vLLM, SGLang, llama.cpp, Ollama.

Moves bytes over kept connections and judges nothing but the transport. A call is made once: what may have reached the
upstream and brought no reply is reported, not repeated. Replies are bounded as sent and as decoded (bounded-memory).
"""

import asyncio
from collections.abc import Mapping, Sequence

import msgspec
import pycurl

from lowtide.domain.splice import replace_member
from lowtide.ports.upstream import Model, Reply, UpstreamBroke, UpstreamError
from lowtide.upstreams.config import UpstreamConfig
from lowtide.upstreams.listing import read_models
from lowtide.upstreams.multi import Multi
from lowtide.upstreams.request_headers import RequestHeaders
from lowtide.upstreams.stream import Stream
from lowtide.upstreams.transfer import ReplyHeaders, Transfer, error_of, overdue

_LISTING_TIMEOUT_S = 30.0
_LISTING_PAGES_MAX = 50
_BODY_KEPT_BYTES = 16 * 1024
"""A handle at rest may hold on to a body of this size; a longer one is let go (bounded-memory)."""
_TICK_S = 0.1
"""How often deadlines are looked at. libcurl's own cost a tenth of a request's time, since each is a timer."""


class MessagesUpstream:
    """One model server. Belongs to the event loop of its first call; implements `ports.upstream.Upstream`."""

    def __init__(self, config: UpstreamConfig) -> None:
        self._config = config
        self._headers = RequestHeaders(config)
        self._url = f"{config.base_url}/v1/messages"
        self._free: list[Transfer] = []
        self._running: dict[pycurl.Curl, Transfer | Stream] = {}
        self._multi: Multi | None = None
        self._tick: asyncio.TimerHandle | None = None

    @property
    def name(self) -> str:
        return self._config.name

    @property
    def in_flight_max(self) -> int:
        return self._config.in_flight_max

    @property
    def fetches_urls(self) -> bool:
        return self._config.fetches_urls

    @property
    def aliases(self) -> Mapping[str, str]:
        return self._config.named_aliases

    def serves(self, model: str) -> bool:
        return self._config.serves(model)

    def prepare(self, params: bytes, model: str) -> bytes:
        target = self._config.alias_of(model)
        if target is None or target == model:
            return params
        return replace_member(params, "model", msgspec.json.encode(target))

    async def send(self, body: bytes, headers: Mapping[str, str], timeout_s: float) -> Reply:
        lines = self._headers.lines(headers)
        transfer = self._free.pop() if self._free else self._new_transfer()
        if transfer.header_list is not lines:
            transfer.curl.setopt(pycurl.HTTPHEADER, lines)
            transfer.header_list = lines
        transfer.curl.setopt(pycurl.POSTFIELDS, body)
        try:
            return await self._run(transfer, timeout_s, len(body))
        finally:
            if not transfer.lane.multi.closed:
                transfer.reset()
                if len(body) > _BODY_KEPT_BYTES:
                    transfer.curl.setopt(pycurl.POSTFIELDS, b"")
                self._free.append(transfer)

    async def open(self, path: str, body: bytes, headers: Mapping[str, str], timeout_s: float) -> Stream:
        multi = self._multi or self._begin()
        stream = Stream(self._config, multi, self._running)
        stream.prepare(f"{self._config.base_url}{path}", body, self._headers.lines(headers), timeout_s)
        await stream.start()
        return stream

    async def models(self) -> Sequence[Model]:
        found: list[Model] = []
        query = "?limit=1000"
        for _ in range(_LISTING_PAGES_MAX):
            page = read_models(await self._get(f"/v1/models{query}"))
            found += page.models
            if page.after is None:
                break
            query = f"?limit=1000&after_id={page.after}"
        return found

    async def close(self) -> None:
        """End every call under way as broken, and close the connections."""
        if self._multi is None:
            return
        for curl, running in list(self._running.items()):
            self._multi.stop(running.lane, curl)
            self._finish(curl, UpstreamBroke("the upstream's driver was closed"))
        if self._tick is not None:
            self._tick.cancel()
        self._multi.close()
        self._multi = None
        self._free.clear()

    async def _get(self, path: str) -> bytes:
        multi = self._multi or self._begin()
        transfer = Transfer(self._config, multi.join())
        transfer.curl.setopt(pycurl.URL, f"{self._config.base_url}{path}")
        transfer.curl.setopt(pycurl.HTTPHEADER, self._headers.lines({}))
        try:
            reply = await self._run(transfer, _LISTING_TIMEOUT_S)
        finally:
            transfer.lane.members -= 1
        if reply.status != 200:
            raise UpstreamError(f"the upstream answered its list of models with HTTP status {reply.status}")
        return reply.body

    async def _run(self, transfer: Transfer, timeout_s: float, body_length: int = 0) -> Reply:
        """Run a prepared transfer to its end. Cancelling it closes its connection."""
        multi = self._multi or self._begin()
        now = multi.loop.time()
        transfer.deadline = now + timeout_s
        transfer.connect_by = now + self._config.connect_timeout_s
        future: asyncio.Future[Reply] = multi.loop.create_future()
        transfer.future = future
        self._running[transfer.curl] = transfer
        multi.start(transfer.lane, transfer.curl, body_length)
        try:
            return await future
        except asyncio.CancelledError:
            if self._running.pop(transfer.curl, None) is not None:
                multi.stop(transfer.lane, transfer.curl)
            raise

    def _new_transfer(self) -> Transfer:
        multi = self._multi or self._begin()
        transfer = Transfer(self._config, multi.join())
        transfer.curl.setopt(pycurl.URL, self._url)
        transfer.curl.setopt(pycurl.POST, 1)
        return transfer

    def _begin(self) -> Multi:
        self._multi = Multi(self._done)
        self._tick = self._multi.loop.call_later(_TICK_S, self._on_tick, self._multi)
        return self._multi

    def _on_tick(self, multi: Multi) -> None:
        """End what is overdue, and step every lane: should an edge ever be missed, it costs a moment and no call."""
        now = multi.loop.time()
        for curl, running in list(self._running.items()):
            if isinstance(running, Transfer) and (error := overdue(running, now)) is not None:
                multi.stop(running.lane, curl)
                self._finish(curl, error)
        multi.step_all()
        self._tick = multi.loop.call_later(_TICK_S, self._on_tick, multi)

    def _done(self, curl: pycurl.Curl, code: int, text: str) -> None:
        """Take the end of a transfer from libcurl."""
        running = self._running[curl]
        too_large = isinstance(running, Transfer) and running.too_large
        self._finish(curl, error_of(curl, code, text, too_large=too_large) if code else None)

    def _finish(self, curl: pycurl.Curl, error: UpstreamError | None) -> None:
        running = self._running.pop(curl)
        if isinstance(running, Stream):
            running.finish(error)
        elif running.future is None or running.future.done():
            return
        elif error is not None:
            running.future.set_exception(error)
        else:
            body = running.pieces[0] if len(running.pieces) == 1 else b"".join(running.pieces)
            status = curl.getinfo(pycurl.RESPONSE_CODE)
            running.future.set_result(Reply(status, ReplyHeaders(running.lines), body))
