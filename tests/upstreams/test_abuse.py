"""Over real sockets: whatever an upstream does, a call ends in its right class and its neighbours are unharmed."""

import asyncio
import gzip
import json
from collections.abc import Callable

import pytest
from scripted import (
    BOMB,
    MESSAGE,
    WHOLE,
    Script,
    ScriptedServer,
    chunked,
    drip,
    reply,
    says,
    stall,
    stall_after,
    then_close,
    then_reset,
)

from lowtide.dispatch.reply import Busy, Failed, Faulty, NoEndpoint, Refused, Succeeded, UnknownModel, judge
from lowtide.ports.upstream import (
    UpstreamBroke,
    UpstreamError,
    UpstreamReplyTooLarge,
    UpstreamTimeout,
)
from lowtide.upstreams.messages import MessagesUpstream

GZIPPED = b"content-encoding: gzip\r\n"
OPENAI_ERROR = b'{"error":{"message":"no","type":"server_error","code":500}}'
ERROR = b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}'

CASES: dict[str, tuple[Script, type]] = {
    "whole": (says(reply(WHOLE)), Succeeded),
    "chunked": (says(chunked(WHOLE)), Succeeded),
    "until close": (then_close(b"HTTP/1.0 200 OK\r\n\r\n" + WHOLE), Succeeded),
    "after 100 continue": (says(b"HTTP/1.1 100 Continue\r\n\r\n" + reply(WHOLE)), Succeeded),
    "gzip": (says(reply(gzip.compress(WHOLE), headers=GZIPPED)), Succeeded),
    "pretty-printed": (says(reply(json.dumps(MESSAGE, indent=2).encode())), Succeeded),
    "ending in LF": (says(reply(WHOLE + b"\r\n\n")), Succeeded),
    "slow drip": (drip, Succeeded),
    "reset before the head": (then_reset(b""), UpstreamBroke),
    "closed without a word": (then_close(b""), UpstreamBroke),
    "closed after headers": (then_close(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n"), UpstreamBroke),
    "half a body": (then_close(reply(WHOLE)[:-20]), UpstreamBroke),
    "half a chunked body": (then_close(chunked(WHOLE)[:-20]), UpstreamBroke),
    "reset inside the body": (then_reset(reply(WHOLE)[:-20]), UpstreamBroke),
    "not HTTP": (then_close(b"SSH-2.0-OpenSSH_9.2\r\n"), UpstreamBroke),
    "garbled gzip": (says(reply(b"\x1f\x8b" + b"\0" * 30, headers=GZIPPED)), UpstreamBroke),
    "gzip bomb": (says(reply(BOMB, headers=GZIPPED)), UpstreamReplyTooLarge),
    "too long by its length": (says(b"HTTP/1.1 200 OK\r\ncontent-length: 999999999\r\n\r\nx"), UpstreamReplyTooLarge),
    "too long in chunks": (says(chunked(b"x" * 2_000_000)), UpstreamReplyTooLarge),
    "stall before the head": (stall, UpstreamTimeout),
    "stall inside the body": (stall_after(reply(WHOLE)[:-20]), UpstreamTimeout),
    "half a JSON, whole HTTP": (says(reply(WHOLE[:-20])), Faulty),
    "length too short": (then_close(reply(WHOLE).replace(b"content-length: ", b"content-length: 1\r\nx: ")), Faulty),
    "empty": (says(reply(b"")), Faulty),
    "HTML": (says(reply(b"<html><body>welcome</body></html>")), Faulty),
    "an error inside a 200": (says(reply(ERROR)), Faulty),
    "bad UTF-8": (says(reply(WHOLE.replace(b"low", b"l\xffw"))), Faulty),
    "NaN": (says(reply(WHOLE.replace(b'"output_tokens":2', b'"x":NaN'))), Faulty),
    "nested too deep": (says(reply(b'{"content":' + b"[" * 5000 + b"]" * 5000 + b"}")), Faulty),
    "another kind of object": (says(reply(b'{"object":"chat.completion","choices":[]}')), Faulty),
    "204": (says(b"HTTP/1.1 204 No Content\r\n\r\n"), Faulty),
    "429": (says(reply(ERROR, 429, b"retry-after: 7\r\n")), Busy),
    "503": (says(reply(b"busy", 503, b"content-type: text/plain\r\n")), Busy),
    "529": (says(reply(ERROR, 529)), Busy),
    "500": (says(reply(OPENAI_ERROR, 500)), Faulty),
    "502 page": (says(reply(b"<html>bad gateway</html>", 502)), Faulty),
    "408": (says(reply(b"", 408)), Faulty),
    "400": (says(reply(ERROR.replace(b"overloaded", b"invalid_request"), 400)), Failed),
    "413": (says(reply(b"", 413)), Failed),
    "422": (says(reply(b'{"detail":[{"loc":["body","x"],"msg":"bad"}]}', 422)), Failed),
    "401": (says(reply(b"", 401)), Refused),
    "403": (says(reply(b"", 403)), Refused),
    "unknown model": (says(reply(b'{"error":{"message":"The model `x` does not exist."}}', 404)), UnknownModel),
    "no endpoint": (says(reply(b'{"detail":"Not Found"}', 404)), NoEndpoint),
    "405": (says(reply(b"", 405)), NoEndpoint),
    "redirect": (says(reply(b"", 307, b"location: http://127.0.0.1:1/elsewhere\r\n")), NoEndpoint),
}


async def outcome(upstream: MessagesUpstream, name: str) -> object:
    try:
        return judge(await upstream.send(name.encode(), {}, 0.4 if "stall" in name else 30), model="tide-1")
    except UpstreamError as error:
        return error


@pytest.fixture
def abusive(server: ScriptedServer) -> ScriptedServer:
    server.scripts |= {name.encode(): script for name, (script, _) in CASES.items()}
    return server


@pytest.mark.parametrize("name", CASES)
async def test_each_abuse_ends_in_its_class(
    abusive: ScriptedServer, connect: Callable[..., MessagesUpstream], name: str
) -> None:
    upstream = connect(reply_bytes_max=1_000_000)
    assert isinstance(await outcome(upstream, name), CASES[name][1])
    assert isinstance(await outcome(upstream, "whole"), Succeeded)
    assert [call.body for call in abusive.calls] == [name.encode(), b"whole"]


async def test_abuse_of_one_call_harms_no_neighbour(
    abusive: ScriptedServer, connect: Callable[..., MessagesUpstream]
) -> None:
    upstream = connect(reply_bytes_max=1_000_000)
    names = [name for case in CASES for name in ("whole", case, "whole")]
    for _ in range(2):
        outcomes = await asyncio.gather(*(outcome(upstream, name) for name in names))
        wrong = [(n, o) for n, o in zip(names, outcomes, strict=True) if not isinstance(o, CASES[n][1])]
        assert not wrong


async def test_a_call_that_kills_its_server_on_a_kept_connection_is_broken_not_unreachable(
    server: ScriptedServer, upstream: MessagesUpstream
) -> None:
    async def die(call: object) -> None:
        assert server._server is not None
        server._server.close()
        server.hang_up()

    server.scripts[b"poison"] = die
    await upstream.send(b"hello", {}, 30)
    with pytest.raises(UpstreamBroke):
        await upstream.send(b"poison", {}, 30)


async def test_texts_of_errors_hold_no_content(abusive: ScriptedServer, upstream: MessagesUpstream) -> None:
    abusive.scripts[b"canary"] = then_close(b"canary canary canary")
    error = await outcome(upstream, "canary")
    assert isinstance(error, UpstreamBroke)
    assert "canary" not in str(error)
