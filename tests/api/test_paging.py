from dataclasses import dataclass

import pytest
from starlette.datastructures import QueryParams

from lowtide.api.paging import Cursor, cut, read_cursor
from lowtide.domain.errors import InvalidRequest


@dataclass(frozen=True)
class Item:
    id: str


ITEMS = [Item(name) for name in "abcde"]


def test_the_default_page_has_twenty() -> None:
    assert read_cursor(QueryParams("")) == Cursor(20, None, None)


def test_unknown_keys_are_tolerated() -> None:
    assert read_cursor(QueryParams("beta=true&limit=1000&after_id=x&foo=1")) == Cursor(1000, None, "x")


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("limit=0", "limit: Input should be greater than or equal to 1"),
        ("limit=-5", "limit: Input should be greater than or equal to 1"),
        ("limit=1001", "limit: Input should be less than or equal to 1000"),
        ("limit=" + "9" * 100, "limit: Input should be less than or equal to 1000"),
        ("limit=" + "9" * 5000, "limit: Input should be a valid integer, unable to parse string as an integer"),
        ("limit=ten", "limit: Input should be a valid integer, unable to parse string as an integer"),
        ("limit=", "limit: Input should be a valid integer, unable to parse string as an integer"),
        ("limit=1.0", "limit: Input should be a valid integer, unable to parse string as an integer"),
        ("limit=%D9%A1", "limit: Input should be a valid integer, unable to parse string as an integer"),
        ("before_id=a&after_id=b", "before_id, after_id: Only one of the two may be given"),
    ],
)
def test_a_bad_query_is_refused_by_name(query: str, text: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read_cursor(QueryParams(query))
    assert refused.value.message == text


@pytest.mark.parametrize(
    ("cursor", "page", "has_more"),
    [
        (Cursor(2, None, None), "ab", True),
        (Cursor(5, None, None), "abcde", False),
        (Cursor(2, None, "b"), "cd", True),
        (Cursor(2, None, "c"), "de", False),
        (Cursor(2, None, "e"), "", False),
        (Cursor(2, "d", None), "bc", True),
        (Cursor(3, "d", None), "abc", False),
        (Cursor(2, "a", None), "", False),
        (Cursor(2, "z", None), "", False),
        (Cursor(2, None, "z"), "", False),
        (Cursor(2, None, ""), "", False),
    ],
)
def test_a_page_is_cut_beside_its_cursor(cursor: Cursor, page: str, has_more: bool) -> None:  # noqa: FBT001 a table of cases
    found, more = cut(ITEMS, cursor)
    assert ("".join(item.id for item in found), more) == (page, has_more)
