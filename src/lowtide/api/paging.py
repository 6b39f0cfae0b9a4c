"""The query of a listing: `limit`, `before_id`, `after_id`. Unknown keys are tolerated, as SDKs send some.

Source: `message-batches-api.md`, sections 5 and 14. Where the texts are not public they follow the pattern of those
that are.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from starlette.datastructures import QueryParams

from lowtide.domain.errors import InvalidRequest
from lowtide.domain.limits import LIST_LIMIT_DEFAULT, LIST_LIMIT_MAX

_INTEGER = re.compile(r"[+-]?[0-9]{1,100}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Cursor:
    """Which page is wanted: those before an id, those after one, or the first."""

    limit: int
    before_id: str | None
    after_id: str | None


class Named(Protocol):
    """Whatever a listing lists."""

    @property
    def id(self) -> str: ...


Item = TypeVar("Item", bound=Named)


def read_cursor(query: QueryParams) -> Cursor:
    """Return the page that a query asks for; raises InvalidRequest."""
    before_id, after_id = query.get("before_id"), query.get("after_id")
    if before_id is not None and after_id is not None:
        raise InvalidRequest("before_id, after_id: Only one of the two may be given")
    return Cursor(_limit(query.get("limit")), before_id, after_id)


def _limit(text: str | None) -> int:
    if text is None:
        return LIST_LIMIT_DEFAULT
    if not _INTEGER.fullmatch(text):
        raise InvalidRequest("limit: Input should be a valid integer, unable to parse string as an integer")
    limit = int(text)
    if limit < 1:
        raise InvalidRequest("limit: Input should be greater than or equal to 1")
    if limit > LIST_LIMIT_MAX:
        raise InvalidRequest(f"limit: Input should be less than or equal to {LIST_LIMIT_MAX}")
    return limit


def cut(items: Sequence[Item], cursor: Cursor) -> tuple[Sequence[Item], bool]:
    """Return the page of `items` that a cursor asks for, and whether more follow in its direction.

    An unknown cursor gives an empty page, so that a pager stops.
    """
    wanted = cursor.before_id if cursor.after_id is None else cursor.after_id
    place = next((index for index, item in enumerate(items) if item.id == wanted), None)
    if wanted is not None and place is None:
        return [], False
    if cursor.before_id is not None and place is not None:
        start = max(0, place - cursor.limit)
        return items[start:place], start > 0
    start = 0 if place is None else place + 1
    return items[start : start + cursor.limit], start + cursor.limit < len(items)
