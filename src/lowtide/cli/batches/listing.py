"""`lowtide batches list`: pages of batches, as a table or as lines of JSON."""

from collections.abc import Iterator

from lowtide.cli.batches.connection import Wanted
from lowtide.cli.batches.output import show, table
from lowtide.cli.batches.statuses import OK
from lowtide.cli.batches.text import ago_s, duration, expiry, outcomes, status
from lowtide.client.api import Api
from lowtide.client.errors import Unreadable, Unusable
from lowtide.client.shapes import Found, found
from lowtide.domain.limits import LIST_LIMIT_MAX

COLUMNS = ("id", "status", "requests", "outcomes", "created", "age", "time")


def list_batches(wanted: Wanted, limit: int | None, *, after: str | None, before: str | None) -> int:
    """Print batches, newest first; no limit: all of them."""
    if after is not None and before is not None:
        raise Unusable("Only one of --after and --before can be given.")
    batches = _pages(wanted.api, limit, after) if before is None else _newer(wanted.api, limit, before)
    output = wanted.output
    if output.json or output.quiet:
        for each in batches:
            output.document(each.raw) if output.json else output.line(each.batch.id)
        return OK
    _print(list(batches))
    return OK


def _pages(api: Api, limit: int | None, after: str | None) -> Iterator[Found]:
    """Yield batches page by page, from newer to older."""
    left = limit
    while left is None or left > 0:
        size = LIST_LIMIT_MAX if left is None else min(left, LIST_LIMIT_MAX)
        page = api.page({"limit": size} | ({} if after is None else {"after_id": after}))
        yield from (found(each) for each in page.data)
        left = None if left is None else left - len(page.data)
        if not page.has_more or not page.data:
            return
        if page.last_id in {None, after}:
            raise Unreadable("The server says that there is more, but not where.")
        after = page.last_id


def _newer(api: Api, limit: int | None, before: str) -> Iterator[Found]:
    """Yield the batches next to `before` that are newer, newest first."""
    pages: list[list[Found]] = []
    left = limit
    while left is None or left > 0:
        size = LIST_LIMIT_MAX if left is None else min(left, LIST_LIMIT_MAX)
        page = api.page({"limit": size, "before_id": before})
        pages.append([found(each) for each in page.data])
        left = None if left is None else left - len(page.data)
        if not page.has_more or not page.data or page.first_id in {None, before}:
            break
        before = pages[-1][0].batch.id
    for each in reversed(pages):
        yield from each


def _print(batches: list[Found]) -> None:
    rows = table(COLUMNS, right=("requests", "age"))
    for each in batches:
        batch = each.batch
        counts = batch.request_counts
        rows.add_row(
            batch.id,
            status(batch),
            f"{counts.total:,}",
            outcomes(counts) if counts.total != counts.processing else "-",
            f"{batch.created_at.astimezone():%Y-%m-%d %H:%M}",
            duration(ago_s(batch.created_at)),
            expiry(batch),
        )
    show(rows)
