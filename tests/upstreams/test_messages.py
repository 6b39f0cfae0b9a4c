"""What a driver of an upstream promises beside its errors: connections, headers, deadlines, streams, listings."""

import asyncio
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from scripted import WHOLE, Call, ScriptedServer, reply, says, stall, stall_after, then_close

from lowtide.ports.upstream import (
    Model,
    Upstream,
    UpstreamBroke,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from lowtide.upstreams.config import UpstreamConfig
from lowtide.upstreams.messages import MessagesUpstream
from lowtide.upstreams.multi import Multi

Connect = Callable[..., MessagesUpstream]


def test_the_driver_keeps_the_port() -> None:
    upstream: Upstream = MessagesUpstream(UpstreamConfig(name="u", url="http://127.0.0.1:1", in_flight_max=3))
    assert (upstream.name, upstream.in_flight_max, upstream.fetches_urls) == ("u", 3, False)


async def test_a_reply_comes_whole_with_its_headers(server: ScriptedServer, upstream: MessagesUpstream) -> None:
    server.scripts[b"x"] = says(reply(b"no", 429, b"Retry-After: 3\r\nX-Two: a\r\nx-two: b\r\n"))
    got = await upstream.send(b"x", {}, 30)
    assert (got.status, got.body) == (429, b"no")
    assert dict(got.headers) == {"retry-after": "3", "x-two": "a, b", "content-length": "2"}


async def test_a_call_goes_to_messages_under_the_prefix_of_the_address(
    server: ScriptedServer, connect: Connect
) -> None:
    await connect(url=f"{server.url}/team/v1/").send(b"x", {}, 30)
    assert (server.calls[0].method, server.calls[0].path) == ("POST", "/team/v1/messages")


async def test_connections_are_kept_and_no_more_than_are_in_flight(
    server: ScriptedServer, upstream: MessagesUpstream
) -> None:
    for _ in range(5):
        await asyncio.gather(*(upstream.send(b"%d" % n, {}, 30) for n in range(40)))
    assert server.connections <= 40
    assert len(server.calls) == 200


async def test_a_kept_connection_that_died_is_replaced_without_a_word(
    server: ScriptedServer, upstream: MessagesUpstream
) -> None:
    server.scripts[b"last"] = then_close(reply(WHOLE))
    await upstream.send(b"last", {}, 30)
    await server.stop()
    await server.start()
    assert (await upstream.send(b"next", {}, 30)).body == WHOLE
    assert [call.body for call in server.calls] == [b"last", b"next"]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"key": "k1"}, {"x-api-key": "k1"}),
        ({"key": "k1", "key_header": "authorization"}, {"authorization": "Bearer k1"}),
        ({}, {}),
    ],
)
async def test_our_own_credential_alone_is_sent(
    server: ScriptedServer, connect: Connect, settings: dict[str, str], expected: dict[str, str]
) -> None:
    await connect(**settings).send(b"x", {"Authorization": "Bearer client", "X-Api-Key": "client"}, 30)
    headers = server.calls[0].headers
    assert {name: headers[name] for name in ("x-api-key", "authorization") if name in headers} == expected


async def test_headers_of_the_create_are_passed_on(server: ScriptedServer, upstream: MessagesUpstream) -> None:
    await upstream.send(b"x", {"anthropic-version": "2026-10-21", "anthropic-beta": "a,b"}, 30)
    await upstream.send(b"x", {}, 30)
    first, second = (call.headers for call in server.calls)
    assert (first["anthropic-version"], first["anthropic-beta"]) == ("2026-10-21", "a,b")
    assert second["anthropic-version"] == "2023-06-01"
    assert "anthropic-beta" not in second
    assert first["content-type"] == "application/json"


@pytest.mark.parametrize(
    "headers",
    [{"anthropic-beta": "a\r\nx-evil: 1"}, {"anthropic-beta": "a\nb"}, {"x\r\ny": "a"}, {"x:": "a"}, {"x": "\0"}],
)
async def test_a_header_that_would_add_a_line_is_refused(
    server: ScriptedServer, upstream: MessagesUpstream, headers: dict[str, str]
) -> None:
    with pytest.raises(UpstreamError):
        await upstream.send(b"x", headers, 30)
    assert not server.calls


async def test_large_bodies_are_sent_without_waiting_for_leave(
    server: ScriptedServer, upstream: MessagesUpstream
) -> None:
    await upstream.send(b"x" * 5_000_000, {}, 30)
    assert "expect" not in server.calls[0].headers
    assert len(server.calls[0].body) == 5_000_000


async def test_large_bodies_and_replies_do_not_wait_for_a_tick(
    server: ScriptedServer, upstream: MessagesUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Multi, "step_all", lambda _: None)
    body, answer = b"x" * 9_000_000, b"y" * 9_000_000
    server.scripts[body] = says(reply(answer))
    assert (await upstream.send(body, {}, 60)).body == answer
    stream = await upstream.open("/v1/messages", body, {}, 60)
    assert b"".join([piece async for piece in stream.pieces()]) == answer


async def test_a_dead_address_is_unreachable(connect: Connect, server: ScriptedServer) -> None:
    await server.stop()
    with pytest.raises(UpstreamUnreachable):
        await connect().send(b"x", {}, 30)


async def test_an_unknown_name_is_unreachable(connect: Connect) -> None:
    with pytest.raises(UpstreamUnreachable):
        await connect(url="http://no-such-host.invalid").send(b"x", {}, 30)


async def test_a_proxy_of_the_environment_is_not_used(
    server: ScriptedServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert (await connect().send(b"x", {}, 30)).status == 200


async def test_cancelling_closes_the_connection(server: ScriptedServer, upstream: MessagesUpstream) -> None:
    server.scripts[b"stall"] = stall
    call = asyncio.create_task(upstream.send(b"stall", {}, 30))
    await server.arrived.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await server.calls[0].hung_up.wait()
    assert (await upstream.send(b"x", {}, 30)).body == WHOLE


async def test_closing_ends_the_calls_under_way_as_broken(server: ScriptedServer, upstream: MessagesUpstream) -> None:
    server.scripts[b"stall"] = stall
    call = asyncio.create_task(upstream.send(b"stall", {}, 30))
    await server.arrived.wait()
    await upstream.close()
    with pytest.raises(UpstreamBroke):
        await call


async def test_a_stream_hands_pieces_on_as_they_come(server: ScriptedServer, upstream: MessagesUpstream) -> None:
    go_on = asyncio.Event()

    async def script(call: Call) -> None:
        call.writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 6\r\n\r\none")
        await go_on.wait()
        call.writer.write(b"two")

    server.scripts[b"x"] = script
    stream = await upstream.open("/v1/messages", b"x", {}, 30)
    assert (stream.status, stream.headers["content-type"]) == (200, "text/event-stream")
    pieces = stream.pieces()
    assert await anext(pieces) == b"one"
    go_on.set()
    assert [piece async for piece in pieces] == [b"two"]


async def test_a_slow_reader_slows_the_upstream(server: ScriptedServer, upstream: MessagesUpstream) -> None:
    written = 0
    body = b"x" * 65536
    total = 400 * len(body)

    async def script(call: Call) -> None:
        nonlocal written
        call.writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % total)
        while written < total:
            call.writer.write(body)
            await call.writer.drain()
            written += len(body)

    server.scripts[b"x"] = script
    stream = await upstream.open("/v1/messages", b"x", {}, 60)
    before = -1
    while written != before:  # until the upstream stands still
        before = written
        await asyncio.sleep(0.2)
    assert written < total
    assert stream._held_bytes <= 512 * 1024
    assert sum([len(piece) async for piece in stream.pieces()]) == total


async def test_a_stream_that_breaks_off_raises_after_its_pieces(
    server: ScriptedServer, upstream: MessagesUpstream
) -> None:
    server.scripts[b"x"] = then_close(reply(WHOLE)[:-10])
    stream = await upstream.open("/v1/messages", b"x", {}, 30)
    pieces = stream.pieces()
    assert await anext(pieces) == WHOLE[:-10]
    with pytest.raises(UpstreamBroke):
        await anext(pieces)


async def test_a_stream_past_its_deadline_times_out(server: ScriptedServer, upstream: MessagesUpstream) -> None:
    server.scripts[b"x"] = stall_after(reply(WHOLE)[:-10])
    stream = await upstream.open("/v1/messages", b"x", {}, 0.3)
    with pytest.raises(UpstreamTimeout):
        [piece async for piece in stream.pieces()]


async def test_closing_a_stream_closes_its_connection(server: ScriptedServer, upstream: MessagesUpstream) -> None:
    server.scripts[b"x"] = stall_after(reply(WHOLE)[:-10])
    stream = await upstream.open("/v1/messages", b"x", {}, 30)
    await stream.close()
    await stream.close()
    await server.calls[0].hung_up.wait()


async def test_models_are_listed_page_by_page_in_anthropics_shape(
    server: ScriptedServer, upstream: MessagesUpstream
) -> None:
    pages = iter(
        [
            (
                b'{"data":[{"type":"model","id":"a","display_name":"A","created_at":"2026-01-01T00:00:00Z"}],'
                b'"has_more":true,"first_id":"a","last_id":"a&x"}'
            ),
            b'{"data":[{"type":"model","id":"b"}],"has_more":false,"first_id":"b","last_id":"b"}',
        ]
    )

    async def script(call: Call) -> None:
        call.writer.write(reply(next(pages)))

    server.scripts[b""] = script
    assert await upstream.models() == [Model("a", "A", 1_767_225_600_000_000), Model("b", "b", 0)]
    assert [call.path for call in server.calls] == ["/v1/models?limit=1000", "/v1/models?limit=1000&after_id=a%26x"]


async def test_models_are_listed_in_openais_shape(server: ScriptedServer, upstream: MessagesUpstream) -> None:
    server.scripts[b""] = says(reply(b'{"object":"list","data":[{"id":"m","object":"model","created":1700000000},7]}'))
    assert await upstream.models() == [Model("m", "m", 1_700_000_000_000_000)]


@pytest.mark.parametrize("answer", [reply(b"{}", 500), reply(b"<html>"), reply(b"[]"), reply(b'{"data":1}')])
async def test_a_listing_that_is_none_raises(server: ScriptedServer, upstream: MessagesUpstream, answer: bytes) -> None:
    server.scripts[b""] = says(answer)
    with pytest.raises(UpstreamError):
        await upstream.models()


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[str, ssl.SSLContext]:
    """A certificate of its own authority for localhost, as a file, and what a server needs to show it."""
    key, file = str(tmp_path / "key.pem"), str(tmp_path / "cert.pem")
    request = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    request += ["-keyout", key, "-out", file, "-days", "2", "-subj", "/CN=localhost"]
    subprocess.run([*request, "-addext", "subjectAltName=DNS:localhost"], check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(file, key)
    return file, context


async def test_https_is_checked_against_the_given_authority(
    certificate: tuple[str, ssl.SSLContext], connect: Connect
) -> None:
    file, context = certificate
    server = ScriptedServer(tls=context)
    await server.start()
    body = b"x" * 3_000_000
    server.scripts[body] = says(reply(body))
    url = f"https://localhost:{server.port}"
    trusting = connect(url=url, ca_file=file)
    for _ in range(3):
        assert (await trusting.send(body, {}, 60)).body == body
    with pytest.raises(UpstreamUnreachable):
        await connect(url=url).send(b"x", {}, 60)
    await trusting.close()
    await server.stop()
