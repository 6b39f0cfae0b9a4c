import pytest

from lowtide.api.ranges import Span, Wanted, is_known, read_range

TAG = '"tag"'


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        ("bytes=0-0", Wanted(0, 0)),
        ("bytes=5-", Wanted(5, None)),
        ("bytes=-3", Wanted(None, 3)),
        ("Bytes = 1-2 ", Wanted(1, 2)),
        ("bytes=0-999999999999999999", Wanted(0, 999_999_999_999_999_999)),
    ],
)
def test_one_well_formed_range_counts(header: str, wanted: Wanted) -> None:
    assert read_range(header, None, TAG) == wanted


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=2-1",
        "bytes=a-b",
        "bytes=0-1,3-4",
        "lines=0-1",
        "bytes=\u0661-\u0662",
    ],
)
def test_anything_else_is_no_range(header: str | None) -> None:
    assert read_range(header, None, TAG) is None


@pytest.mark.parametrize(
    ("if_range", "counts"),
    [('"tag"', True), ('"other"', False), ('W/"tag"', False), ("Mon, 23 Nov 2026 00:00:00 GMT", False)],
)
def test_if_range_lets_a_range_count_only_for_the_same_file(if_range: str, counts: bool) -> None:  # noqa: FBT001 a table of cases
    assert (read_range("bytes=1-", if_range, TAG) is not None) is counts


@pytest.mark.parametrize(
    ("wanted", "size", "span"),
    [
        (Wanted(0, 0), 10, Span(0, 1)),
        (Wanted(3, None), 10, Span(3, 10)),
        (Wanted(3, 99), 10, Span(3, 10)),
        (Wanted(9, 9), 10, Span(9, 10)),
        (Wanted(10, None), 10, None),
        (Wanted(None, 4), 10, Span(6, 10)),
        (Wanted(None, 99), 10, Span(0, 10)),
        (Wanted(None, 0), 10, None),
        (Wanted(None, 4), 0, None),
    ],
)
def test_a_range_means_the_bytes_that_the_file_has_of_it(wanted: Wanted, size: int, span: Span | None) -> None:
    assert wanted.within(size) == span


@pytest.mark.parametrize(
    ("header", "known"),
    [
        (None, False),
        ('"tag"', True),
        ('W/"tag"', True),
        ('"a", W/"tag"', True),
        ("*", True),
        ('"tags"', False),
        ("tag", False),
    ],
)
def test_a_tag_the_client_has_is_known(header: str | None, known: bool) -> None:  # noqa: FBT001 a table of cases
    assert is_known(header, TAG) is known
