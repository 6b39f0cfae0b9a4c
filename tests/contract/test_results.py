"""Section 6 of the contract: the download of results, its lines, and what is ours: Range, ETag, HEAD, abortion."""

import http.client
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from contract.serving import Answer, Served

PATH = "/v1/messages/batches"
SEPARATED = "a\u2028b\u2029c\u0085d\r\ne"


@dataclass(frozen=True)
class Ended:
    """A batch that has ended: one request of each kind, and one whose text breaks lines."""

    served: Served
    id: str

    def results(self, headers: dict[str, str | None] | None = None, method: str = "GET") -> Answer:
        return self.served.call(method, f"{PATH}/{self.id}/results", None, headers)


@pytest.fixture(scope="module")
def ended(served: Served) -> Ended:
    batch_id = served.create("good", "bad", "hard")
    served.finish(batch_id, {"hard": SEPARATED}, errored=["bad"])
    return Ended(served, batch_id)


def test_6_results_have_the_contracts_headers(ended: Ended) -> None:
    answer = ended.results()
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/x-jsonl"
    disposition = f"attachment; filename*=utf-8''{ended.id}_results.jsonl"
    assert answer.headers["content-disposition"] == disposition
    assert answer.headers["transfer-encoding"] == "chunked"
    assert answer.headers["request-id"].startswith("req_01")
    assert "retry-after" not in answer.headers


def test_6_there_is_one_line_per_request_and_every_line_ends_with_one_lf(ended: Ended) -> None:
    body = ended.results().body
    assert body.endswith(b"}\n")
    assert b"\r" not in body
    assert b"\n\n" not in body
    lines = body.split(b"\n")[:-1]
    assert {json.loads(line)["custom_id"] for line in lines} == {"good", "bad", "hard"}
    assert len(lines) == 3


def test_6_1_lines_have_the_contracts_keys_in_order(ended: Ended) -> None:
    lines = {json.loads(line)["custom_id"]: line for line in ended.results().body.splitlines()}
    assert lines["good"].startswith(b'{"custom_id":"good","result":{"type":"succeeded","message":{"model":')
    prefix = b'{"custom_id":"bad","result":{"type":"errored","error":{"type":"error","error":{"details":null,"type":'
    assert lines["bad"].startswith(prefix + b'"api_error","message":"It broke"},"request_id":"workerreq_01')


def test_6_2_line_separators_inside_a_text_are_escaped_and_read_back(ended: Ended) -> None:
    body = ended.results().body
    assert all(raw not in body for raw in ("\u2028".encode(), "\u2029".encode(), "\u0085".encode()))
    assert len(body.decode().splitlines()) == 3
    (line,) = [json.loads(line) for line in body.decode().splitlines() if '"hard"' in line]
    assert line["result"]["message"]["content"][0]["text"] == SEPARATED


@pytest.mark.parametrize("accept", ["application/binary", "application/x-jsonl", "text/html", "*/*", None])
def test_0_5_no_accept_header_is_refused(ended: Ended, accept: str | None) -> None:
    assert ended.results({"accept": accept}).status == 200


def test_6_results_may_be_read_again(ended: Ended) -> None:
    assert ended.results().body == ended.results().body


@pytest.mark.parametrize("cancel", [False, True], ids=["in_progress", "canceling"])
def test_6_there_are_no_results_before_the_end(still: Served, *, cancel: bool) -> None:
    batch_id = still.create()
    if cancel:
        still.call("POST", f"{PATH}/{batch_id}/cancel")
    answer = still.call("GET", f"{PATH}/{batch_id}/results")
    assert answer.error == (404, "not_found_error", f"Message Batch {batch_id} has no available results.")
    assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    ("header", "cut"),
    [
        pytest.param("bytes=0-9", slice(0, 10), id="first"),
        pytest.param("bytes=100-", slice(100, None), id="open"),
        pytest.param("bytes=-7", slice(-7, None), id="suffix"),
        pytest.param("bytes=5-99999999", slice(5, None), id="past-the-end"),
    ],
)
def test_a_range_gives_those_bytes(ended: Ended, header: str, cut: slice) -> None:
    whole = ended.results().body
    answer = ended.results({"range": header})
    start, stop, _ = cut.indices(len(whole))
    assert (answer.status, answer.body) == (206, whole[cut])
    assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{len(whole)}"
    assert answer.headers["content-length"] == str(stop - start)


@pytest.mark.parametrize("header", ["bytes=0-1,3-4", "lines=1-2", "bytes=9-1"])
def test_a_range_that_is_none_gives_the_whole(ended: Ended, header: str) -> None:
    answer = ended.results({"range": header})
    assert (answer.status, answer.body) == (200, ended.results().body)


def test_a_range_past_the_end_is_refused_with_the_size(ended: Ended) -> None:
    size = len(ended.results().body)
    answer = ended.results({"range": f"bytes={size}-"})
    assert answer.error == (416, "invalid_request_error", f"Range: the results have {size} bytes")
    assert answer.headers["content-range"] == f"bytes */{size}"


def test_a_download_that_broke_off_goes_on_by_if_range(ended: Ended) -> None:
    whole = ended.results()
    rest = ended.results({"range": "bytes=50-", "if-range": whole.headers["etag"]})
    assert (rest.status, rest.body) == (206, whole.body[50:])
    changed = ended.results({"range": "bytes=50-", "if-range": '"another"'})
    assert (changed.status, changed.body) == (200, whole.body)


def test_a_file_that_the_client_has_is_not_sent_again(ended: Ended) -> None:
    etag = ended.results().headers["etag"]
    answer = ended.results({"if-none-match": etag})
    assert (answer.status, answer.body, answer.headers["etag"]) == (304, b"", etag)
    assert ended.results({"if-none-match": '"another"'}).status == 200


def test_head_tells_the_size_without_a_body(ended: Ended) -> None:
    whole = ended.results()
    answer = ended.results(method="HEAD")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["content-length"] == str(len(whole.body))
    assert answer.headers["etag"] == whole.headers["etag"]
    assert answer.headers["accept-ranges"] == "bytes"


def test_a_client_of_http_1_0_gets_a_length_and_no_chunks(ended: Ended) -> None:
    head = f"GET {PATH}/{ended.id}/results HTTP/1.0\r\nanthropic-version: 2023-06-01\r\n\r\n"
    answered, _, body = ended.served.exchange(head.encode()).partition(b"\r\n\r\n")
    assert body == ended.results().body
    assert f"content-length: {len(body)}\r\n".encode() in answered
    assert b"transfer-encoding" not in answered


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ended]:
    """Results of several blocks, in one segment of about 8 MB."""
    with Served(tmp_path_factory.mktemp("long")) as served:
        names = [f"r{number}" for number in range(256)]
        batch_id = served.create(*names)
        served.finish(batch_id, dict.fromkeys(names, "x" * 30000))
        yield Ended(served, batch_id)


def segment_of(served: Served) -> Path:
    (segment,) = [path for path in (served.data / "objects" / "segments").rglob("*") if path.is_file()]
    return segment


def test_a_fault_in_the_middle_is_an_incomplete_read(long: Ended) -> None:
    whole = long.results().body
    assert whole.count(b"\n") == 256
    segment = segment_of(long.served)
    data = bytearray(segment.read_bytes())
    damaged = bytes(data)
    data[-100] ^= 1
    segment.write_bytes(data)
    try:
        with pytest.raises(http.client.IncompleteRead) as broken:
            long.results()
        assert whole.startswith(broken.value.partial)
        assert len(broken.value.partial) < len(whole)
        assert long.results({"range": "bytes=0-9"}).body == whole[:10]
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            long.results({"range": "bytes=10-"})
    finally:
        segment.write_bytes(damaged)


def test_a_fault_at_the_start_is_told(long: Ended) -> None:
    segment = segment_of(long.served)
    moved = segment.rename(segment.with_name("moved"))
    try:
        assert long.results().error == (500, "api_error", "Internal server error")
    finally:
        moved.rename(segment)
    assert long.results().status == 200


def test_a_client_that_leaves_ends_the_reading(long: Ended) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", long.served.port)
    connection.request("GET", f"{PATH}/{long.id}/results", headers={"anthropic-version": "2023-06-01"})
    connection.getresponse().read(1000)
    connection.close()
    assert long.results().status == 200
