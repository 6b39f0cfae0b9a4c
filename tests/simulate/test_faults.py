"""Each fault, by a mark in the prompt or by rate, as a client meets it."""

import gzip
import io
import json
import socket
import ssl
from collections.abc import Callable
from contextlib import AbstractContextManager

import httpx2
import pytest

from lowtide.domain.errors import InvalidRequest, SettingsError
from lowtide.simulate.faults import KINDS, OTHERS, STATUSES, Fault, Faults, parse_rate

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # a client need not read all certificates for http
Serve = Callable[..., AbstractContextManager[str]]


def body(mark: str, **changes: object) -> bytes:
    messages = [{"role": "user", "content": f"Please {mark} go on"}]
    return json.dumps({"model": "m", "max_tokens": 40, "messages": messages} | changes).encode()


def post(url: str, mark: str, **changes: object) -> httpx2.Response:
    return httpx2.post(f"{url}/v1/messages", content=body(mark, **changes), timeout=20, verify=NO_TLS)


@pytest.mark.parametrize("status", STATUSES)
def test_a_status_is_answered_in_the_envelope(url: str, status: str) -> None:
    reply = post(url, f"[[simulate: {status}]]")
    assert reply.status_code == int(status)
    assert reply.json()["error"]["type"] == STATUSES[status][0]
    assert "retry-after" not in reply.headers


def test_retry_after_is_said_as_given(url: str) -> None:
    assert post(url, "[[simulate: 429 retry-after=2]]").headers["retry-after"] == "2"


def test_the_first_tries_fail_and_then_it_succeeds_each_body_for_itself(url: str) -> None:
    tries = [post(url, "[[simulate: 503 times=2 id=first]]").status_code for _ in range(4)]
    assert tries == [503, 503, 200, 200]
    assert post(url, "[[simulate: 503 times=2 id=second]]").status_code == 503


@pytest.mark.parametrize("kind", ["reset", "crash"])
def test_a_reset_comes_before_any_byte(url: str, kind: str) -> None:
    with pytest.raises(httpx2.TransportError):
        post(url, f"[[simulate: {kind}]]")
    assert post(url, "").status_code == 200


@pytest.mark.parametrize("streamed", [False, True])
def test_half_a_body_is_cut_off(url: str, *, streamed: bool) -> None:
    with pytest.raises(httpx2.RemoteProtocolError):
        post(url, "[[simulate: half-body]]", stream=streamed)


def test_a_stall_says_nothing_until_the_caller_hangs_up(url: str) -> None:
    with pytest.raises(httpx2.ReadTimeout):
        httpx2.post(f"{url}/v1/messages", content=body("[[simulate: stall]]"), timeout=0.2, verify=NO_TLS)


def test_a_stall_of_some_seconds_ends_in_a_reset(url: str) -> None:
    with pytest.raises(httpx2.TransportError):
        post(url, "[[simulate: stall seconds=0.01]]")


def test_a_slow_reply_is_the_right_one(url: str) -> None:
    assert post(url, "[[simulate: slow seconds=0.01]]").json()["type"] == "message"


def test_an_empty_200_has_no_body(url: str) -> None:
    assert post(url, "[[simulate: empty]]").content == b""


def test_a_page_of_html_comes_as_html(url: str) -> None:
    reply = post(url, "[[simulate: html]]")
    assert reply.headers["content-type"].startswith("text/html")
    assert reply.text.startswith("<!doctype html>")


def test_wrong_json_is_json_but_no_message(url: str) -> None:
    assert "content" not in post(url, "[[simulate: wrong-json]]").json()


@pytest.mark.parametrize(
    ("kind", "error"), [("broken-json", ValueError), ("bad-utf8", ValueError), ("deep", RecursionError)]
)
def test_what_cannot_be_decoded_cannot_be_decoded(url: str, kind: str, error: type[Exception]) -> None:
    reply = post(url, f"[[simulate: {kind}]]")
    assert reply.status_code == 200
    with pytest.raises(error):
        json.loads(reply.content)


def test_an_error_in_a_200_is_an_errors_envelope(url: str) -> None:
    assert post(url, "[[simulate: error-in-200]]").json()["type"] == "error"


def test_line_breaks_stand_between_and_inside(url: str) -> None:
    reply = post(url, "[[simulate: line-breaks]]")
    assert b"\r\n" in reply.content
    assert {"\u2028", "\u2029", "\u0085"} <= set(reply.json()["content"][0]["text"])


def test_a_bomb_is_small_until_it_is_opened(url: str) -> None:
    with httpx2.stream(
        "POST", f"{url}/v1/messages", content=body("[[simulate: gzip-bomb]]"), timeout=60, verify=NO_TLS
    ) as reply:
        raw = b"".join(reply.iter_raw())
    assert len(raw) < 200_000
    with gzip.GzipFile(fileobj=io.BytesIO(raw)) as opened:
        size = sum(len(part) for part in iter(lambda: opened.read(1 << 20), b""))
    assert size > 64 * 1024 * 1024


def test_an_endless_body_goes_on_until_the_caller_hangs_up(url: str) -> None:
    with httpx2.stream("POST", f"{url}/v1/messages", content=body("[[simulate: endless]]"), verify=NO_TLS) as reply:
        seen = 0
        for part in reply.iter_raw():
            seen += len(part)
            if seen > 4_000_000:
                break
    assert post(url, "").status_code == 200


def test_llama_cpp_calls_a_stop_sequence_the_end_of_the_turn(url: str) -> None:
    reply = post(url, "[[simulate: llama-cpp]]", stop_sequences=["] "]).json()
    assert reply["id"].startswith("chatcmpl-")
    assert (reply["stop_reason"], reply["stop_sequence"]) == ("end_turn", "] ")


def test_a_crash_ends_the_process_where_it_is_allowed(start: Serve) -> None:
    with start("--speed", "0", "--allow-crash") as url:
        with pytest.raises(httpx2.TransportError):
            post(url, "[[simulate: crash]]")
        host, port = url.removeprefix("http://").split(":")
        for _ in range(1_000):  # the kernel closes a dead process's sockets one by one
            try:
                socket.create_connection((host, int(port))).close()
            except ConnectionError:
                return
        pytest.fail("it still listens")


def test_a_mark_that_cannot_be_read_is_refused_and_says_so(url: str) -> None:
    reply = post(url, "[[simulate: boom]]")
    assert reply.status_code == 400
    assert "cannot be read" in reply.json()["error"]["message"]


def test_a_caller_that_hangs_up_leaves_the_engine(start: Serve) -> None:
    with start("--speed", "0.001") as url:
        for streamed in (False, True):
            with pytest.raises(httpx2.ReadTimeout):
                httpx2.post(f"{url}/v1/messages", content=body("", stream=streamed), timeout=0.2, verify=NO_TLS)
        for _ in range(100):
            text = httpx2.get(f"{url}/metrics", verify=NO_TLS).text
            if 'running{engine="0",model_name="simulated"} 0.0' in text:
                return
        pytest.fail("the sequences still run")


def test_faults_by_rate_befall_about_that_share_and_the_same_calls_for_a_seed() -> None:
    rates = (parse_rate("529=0.2"), parse_rate("429=0.1,retry-after=3"))

    def drawn() -> list[str | None]:
        faults = Faults(rates, seed=4)
        return [faults.befalling(b"{}").kind for _ in range(5_000)]

    kinds = drawn()
    assert kinds == drawn()
    assert 850 < kinds.count("529") < 1_150
    assert 400 < kinds.count("429") < 600


def test_a_marked_name_and_a_fault_by_rate_go_together() -> None:
    faults = Faults((parse_rate("reset=1"),), seed=0)
    assert faults.befalling(b"[[simulate: id=x]]") == Fault("reset", id="x")
    assert faults.befalling(b"[[simulate: 500]]").kind == "500"


@pytest.mark.parametrize("text", ["", "529", "529=2", "boom=0.1", "529=0.1,colour=red", "429=x"])
def test_a_rate_that_cannot_be_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(SettingsError, match="--fault"):
        parse_rate(text)


def test_a_mark_of_two_kinds_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        Faults((), 0).befalling(b"[[simulate: 500 503]]")


def test_every_kind_is_explained_in_the_help() -> None:
    from lowtide.simulate import faults  # noqa: PLC0415  # its docstring is the help

    assert all(kind in (faults.__doc__ or "") for kind in KINDS)
    assert len(KINDS) == len(STATUSES) + len(OTHERS)
