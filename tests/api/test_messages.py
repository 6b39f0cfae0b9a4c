import pytest

from lowtide.api.messages import read_model, rename, told
from lowtide.domain.errors import ErrorType, InvalidRequest
from lowtide.ports.upstream import (
    UpstreamBroke,
    UpstreamError,
    UpstreamReplyTooLarge,
    UpstreamTimeout,
    UpstreamUnreachable,
)


@pytest.mark.parametrize(
    ("error", "status", "error_type"),
    [
        (UpstreamUnreachable("x"), 529, ErrorType.OVERLOADED),
        (UpstreamTimeout("x"), 504, ErrorType.TIMEOUT),
        (UpstreamBroke("x"), 500, ErrorType.API),
        (UpstreamReplyTooLarge("x"), 500, ErrorType.API),
        (UpstreamError("x"), 500, ErrorType.API),
    ],
)
def test_a_call_that_brought_no_reply_is_told_by_its_kind(
    error: UpstreamError, status: int, error_type: ErrorType
) -> None:
    assert (told(error).status, told(error).error_type) == (status, error_type)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"type":"error","request_id":"req_x"}', b'{"type":"error","request_id":"req_ours"}'),
        (b'{"request_id" : null, "n":1e3}', b'{"request_id" : "req_ours", "n":1e3}'),
        (b'{"error":{"request_id":"req_x"}}', b'{"error":{"request_id":"req_x"}}'),
        (b'{"request_id":{"a":1}}', b'{"request_id":{"a":1}}'),
        (b"<html>request_id</html>", b"<html>request_id</html>"),
        (b"", b""),
    ],
)
def test_only_the_request_id_of_an_envelope_is_ours(body: bytes, expected: bytes) -> None:
    assert rename(body, "req_ours") == expected


def test_the_last_model_of_a_body_counts_and_may_be_escaped() -> None:
    assert read_model(b'{"mod\\u0065l":"caf\\u00e9"}') == "caf\u00e9"


@pytest.mark.parametrize("body", [b"", b"{", b"null", b'{"model":null}', b'{"model":"\xff"}', b"[" * 100_000])
def test_a_body_without_a_readable_model_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        read_model(body)
