"""`POST /v1/messages`: from the body to the last byte of the reply, or to the fault that was asked for.

A bare ASGI application, since thousands of calls a second pass here. A call whose caller hangs up leaves the engine at
once. Nothing here blocks; the only waiting is for the body, for the engine's report and for a `slow` fault.
"""

import asyncio
import os
from typing import Final

from starlette.types import Receive, Scope, Send

from lowtide.domain.errors import ContractError, InvalidRequest, TooLarge, Unauthorized
from lowtide.domain.ids import CALL, new_id
from lowtide.simulate.answers import Answer, bent, faulty_status, faulty_success, json_answer, refused
from lowtide.simulate.blocks import block_hashes
from lowtide.simulate.call_log import CallLog
from lowtide.simulate.catalogue import Catalogue
from lowtide.simulate.connection import Connection, connection_of
from lowtide.simulate.engine import Engine, Phase, Sequence
from lowtide.simulate.faults import STATUSES, Fault, Faults
from lowtide.simulate.pacer import Pacer
from lowtide.simulate.prompt import TOKEN_BYTES
from lowtide.simulate.reply import Reply, compose, message
from lowtide.simulate.settings import ServerSettings
from lowtide.simulate.sse import Events
from lowtide.simulate.wire import Call, read_call

DELTA_TOKENS: Final = 8
"""Tokens in one delta of a stream."""
CRASH_STATUS: Final = 70


class CallerGone(Exception):
    """The connection was lost before the reply was ready."""


class Messages:
    """The route, with the engine behind it."""

    def __init__(self, settings: ServerSettings, catalogue: Catalogue) -> None:
        self.engine = Engine(settings.engine)
        self._settings = settings
        self._catalogue = catalogue
        self._pacer = Pacer(self.engine, settings.speed)
        self._faults = Faults(settings.faults, settings.seed)
        self._log = CallLog(settings.log)
        self._block_bytes = settings.engine.block_tokens * TOKEN_BYTES

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body = await read_body(receive, self._settings.body_bytes_max)
            authenticate(scope, self._settings.api_key)
            fault = self._faults.befalling(body)
            self._log.write(scope["path"], body, fault)
            if fault.kind is None:
                await self._reply(body, fault, connection_of(scope), send)
            else:
                await self._misbehave(body, fault, connection_of(scope), receive, send)
        except ContractError as error:
            await send_answer(send, refused(error))
        except CallerGone:
            return

    async def _misbehave(self, body: bytes, fault: Fault, connection: Connection, receive: Receive, send: Send) -> None:
        match fault.kind:
            case kind if kind in STATUSES:
                await send_answer(send, faulty_status(fault))
            case "crash" if self._settings.allow_crash:
                os._exit(CRASH_STATUS)
            case "crash" | "reset":
                connection.reset()
                await until_lost(receive)
            case "stall":
                await stall(fault.seconds, connection, receive)
            case "endless":
                await send_endless(connection, send)
            case "slow":
                await asyncio.sleep(fault.seconds or 1.0)
                await self._reply(body, fault, connection, send)
            case kind if kind is not None and (answer := faulty_success(kind)) is not None:
                await send_answer(send, answer)
            case _:
                await self._reply(body, fault, connection, send)
                await until_lost(receive) if fault.kind == "half-body" else None

    async def _reply(self, body: bytes, fault: Fault, connection: Connection, send: Send) -> None:
        call = read_call(body)
        self._catalogue.check(call.model)
        if call.prompt.tokens > self._settings.engine.context_tokens:
            most = self._settings.engine.context_tokens
            raise InvalidRequest(f"prompt is too long: {call.prompt.tokens} tokens > {most} maximum")
        reply = compose(call, self._settings)
        if call.stream:
            await self._stream(call, reply, fault, connection, send)
            return
        sequence = self._sequence(call, reply)
        await self._run(sequence, connection)
        answer = json_answer(message(call, reply, sequence.cached_tokens))
        if fault.kind is not None:
            answer = Answer(200, bent(fault.kind, answer.body), request_id=answer.request_id)
        await send_answer(send, answer, connection if fault.kind == "half-body" else None)

    def _sequence(self, call: Call, reply: Reply) -> Sequence:
        return Sequence(
            hashes=block_hashes(call.prompt.rendered, self._block_bytes),
            prompt_tokens=call.prompt.tokens,
            output_tokens=reply.output_tokens,
        )

    async def _run(self, sequence: Sequence, connection: Connection) -> None:
        """Run a sequence to its end; CallerGone, and the sequence aborted, if the connection is lost before."""
        news = asyncio.Event()
        sequence.report = connection.on_lost = news.set
        self._pacer.submit(sequence)
        try:
            await news.wait()
            if connection.lost:
                raise CallerGone
        finally:
            connection.on_lost = None
            self._pacer.abort(sequence)

    async def _stream(self, call: Call, reply: Reply, fault: Fault, connection: Connection, send: Send) -> None:
        sequence = self._sequence(call, reply)
        sequence.report_every = DELTA_TOKENS
        news = asyncio.Event()
        sequence.report = connection.on_lost = news.set
        self._pacer.submit(sequence)
        events: Events | None = None
        try:
            while True:
                await news.wait()
                news.clear()
                if connection.lost:
                    raise CallerGone
                if events is None:
                    events = Events(message(call, reply, sequence.cached_tokens), reply)
                    await send_start(send)
                    await send_part(send, events.opening())
                await send_part(send, events.delta(sequence.written_tokens))
                if fault.kind == "half-body" and 2 * sequence.written_tokens >= sequence.output_tokens:
                    connection.hang_up()
                    return
                if sequence.phase is Phase.DONE:
                    await send({"type": "http.response.body", "body": events.closing()})
                    return
        finally:
            connection.on_lost = None
            self._pacer.abort(sequence)


async def read_body(receive: Receive, bytes_max: int) -> bytes:
    """Return the whole body; TooLarge past the limit, CallerGone if it never comes to its end."""
    body = bytearray()
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise CallerGone
        body += event.get("body", b"")
        if len(body) > bytes_max:
            raise TooLarge
        if not event.get("more_body"):
            return bytes(body)


def authenticate(scope: Scope, key: str | None) -> None:
    """Raise Unauthorized if a key is wanted and neither header carries it."""
    if key is None:
        return
    headers = dict(scope["headers"])
    if headers.get(b"x-api-key") != key.encode() and headers.get(b"authorization") != b"Bearer " + key.encode():
        raise Unauthorized("invalid x-api-key")


async def send_answer(send: Send, answer: Answer, halved: Connection | None = None) -> None:
    """Send a whole answer, or, if a connection to halve is given, half of its body and then hang up."""
    await send({"type": "http.response.start", "status": answer.status, "headers": answer.header_list()})
    if halved is None:
        await send({"type": "http.response.body", "body": answer.body})
    else:
        await send_part(send, answer.body[: len(answer.body) // 2])
        halved.hang_up()


async def send_start(send: Send) -> None:
    """Begin a stream of events."""
    headers = [
        (b"content-type", b"text/event-stream; charset=utf-8"),
        (b"cache-control", b"no-cache"),
        (b"request-id", new_id(CALL).encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})


async def send_part(send: Send, part: bytes) -> None:
    """Send a part of a body that goes on."""
    if part:
        await send({"type": "http.response.body", "body": part, "more_body": True})


async def send_endless(connection: Connection, send: Send) -> None:
    """Send a body until the caller hangs up."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send_part(send, b'{"simulated":true,"endless":"')
    while not connection.lost:
        await send_part(send, b"a" * 65_536)
        await asyncio.sleep(0)


async def stall(seconds: float | None, connection: Connection, receive: Receive) -> None:
    """Say nothing for a while, then reset; without a time, until the caller hangs up."""
    if seconds is None:
        await until_lost(receive)
        return
    await asyncio.sleep(seconds)
    if not connection.lost:
        connection.reset()
        await until_lost(receive)


async def until_lost(receive: Receive) -> None:
    """Wait until the connection is lost; the body must have been read."""
    while (await receive())["type"] != "http.disconnect":
        continue
