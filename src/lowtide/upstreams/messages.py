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
from lowtide.upstreams.transfer import ReplyHeaders, Transfer, error_of

_LISTING_TIMEOUT_S = 30.0
_LISTING_PAGES_MAX = 50
_STREAMS_KEPT = 64
"""Connections kept for interactive calls, beside those of batches."""


class MessagesUpstream:
    """One model server. Belongs to the event loop of its first call; implements `ports.upstream.Upstream`."""

    def __init__(self, config: UpstreamConfig) -> None:
        self._config = config
        self._headers = RequestHeaders(config)
        self._url = f"{config.base_url}/v1/messages"
        self._free: list[Transfer] = []
        self._running: dict[pycurl.Curl, Transfer | Stream] = {}
        self._multi: Multi | None = None

    @property
    def name(self) -> str:
        return self._config.name

    @property
    def in_flight_max(self) -> int:
        return self._config.in_flight_max

    @property
    def fetches_urls(self) -> bool:
        return self._config.fetches_urls

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
        curl = transfer.curl
        if transfer.header_list is not lines:
            curl.setopt(pycurl.HTTPHEADER, lines)
            transfer.header_list = lines
        curl.setopt(pycurl.POSTFIELDS, body)
        return await self._run(transfer, timeout_s)

    async def open(self, path: str, body: bytes, headers: Mapping[str, str], timeout_s: float) -> Stream:
        multi = self._ensure_multi()
        stream = Stream(self._config, multi, self._running.pop)
        stream.prepare(f"{self._config.base_url}{path}", body, self._headers.lines(headers), timeout_s)
        self._running[stream.curl] = stream
        await stream.start()
        return stream

    async def models(self) -> Sequence[Model]:
        found: list[Model] = []
        after = ""
        for _ in range(_LISTING_PAGES_MAX):
            page = read_models(await self._get(f"/v1/models?limit=1000{after}"))
            found += page.models
            if page.after is None:
                break
            after = f"&after_id={page.after}"
        return found

    async def close(self) -> None:
        """End every call under way as broken, and close the connections."""
        if self._multi is None:
            return
        for curl in list(self._running):
            self._multi.stop(curl)
            self._finish(curl, UpstreamBroke("the upstream's driver was closed"))
        self._multi.close()
        self._multi = None
        for transfer in self._free:
            transfer.curl.close()
        self._free.clear()

    async def _get(self, path: str) -> bytes:
        transfer = Transfer(self._config)
        transfer.curl.setopt(pycurl.URL, f"{self._config.base_url}{path}")
        transfer.curl.setopt(pycurl.HTTPHEADER, self._headers.lines({}))
        reply = await self._run(transfer, _LISTING_TIMEOUT_S, keep=False)
        if reply.status != 200:
            raise UpstreamError(f"the upstream answered its list of models with HTTP status {reply.status}")
        return reply.body

    async def _run(self, transfer: Transfer, timeout_s: float, *, keep: bool = True) -> Reply:
        """Run a prepared transfer to its end. Cancelling it closes its connection."""
        multi = self._multi or self._ensure_multi()
        curl = transfer.curl
        timeout_ms = max(1, int(timeout_s * 1000))
        if transfer.timeout_ms != timeout_ms:
            curl.setopt(pycurl.TIMEOUT_MS, timeout_ms)
            transfer.timeout_ms = timeout_ms
        future: asyncio.Future[Reply] = multi.loop.create_future()
        transfer.future = future
        self._running[curl] = transfer
        multi.start(curl)
        try:
            return await future
        except asyncio.CancelledError:
            if self._running.pop(curl, None) is not None:
                multi.stop(curl)
            raise
        finally:
            transfer.begin()
            if keep:
                self._free.append(transfer)

    def _new_transfer(self) -> Transfer:
        transfer = Transfer(self._config)
        transfer.curl.setopt(pycurl.URL, self._url)
        transfer.curl.setopt(pycurl.POST, 1)
        return transfer

    def _ensure_multi(self) -> Multi:
        if self._multi is None:
            self._multi = Multi(self._done, self._config.in_flight_max + _STREAMS_KEPT)
        return self._multi

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
