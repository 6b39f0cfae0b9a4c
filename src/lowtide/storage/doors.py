"""What a client's call does to its batches: get, list, name, cancel and delete.

Invariant workspace-walls: the workspace stands in every statement, so that a foreign id answers as an unknown one does.
"""

from typing import Any

from sqlalchemy import Connection, Select, bindparam, select, update

from lowtide.domain.times import HOUR_US
from lowtide.ports.metadata import Batch, Page
from lowtide.storage import batch_rows
from lowtide.storage.moments import Moment
from lowtide.storage.tables import CANCELING, ENDED, IN_PROGRESS, batch, creation

NAMED_WITHIN_US = HOUR_US

FIND_CURSOR = select(batch.c.key).where(batch.c.id == bindparam("id"), batch.c.workspace == bindparam("workspace"))
"""Deleted batches too: who deletes each page of a listing goes on after one that is deleted."""

_LIST: Select[Any] = (
    select(batch)
    .where(batch.c.workspace == bindparam("workspace"), batch.c.deleted_us.is_(None))
    .limit(bindparam("rows"))
)
LIST_NEWEST = _LIST.order_by(batch.c.key.desc())
LIST_OLDER = LIST_NEWEST.where(batch.c.key < bindparam("cursor"))
LIST_NEWER = _LIST.where(batch.c.key > bindparam("cursor")).order_by(batch.c.key)

FIND_UNNAMED = (
    select(creation.c.key)
    .join(batch, batch.c.key == creation.c.batch_key)
    .where(batch.c.id == bindparam("id"), batch.c.workspace == bindparam("workspace"))
    .where(creation.c.credential == bindparam("credential"), creation.c.named.is_(False))
    .where(creation.c.created_us > bindparam("since_us"))
)
NAME = update(creation).values(named=True).where(creation.c.key == bindparam("creation"))

CANCEL = (
    update(batch)
    .values(state=CANCELING, cancel_initiated_us=bindparam("now_us"))
    .where(batch.c.id == bindparam("of_id"), batch.c.workspace == bindparam("of_workspace"))
    .where(batch.c.deleted_us.is_(None), batch.c.state == IN_PROGRESS)
)
DELETE = (
    update(batch)
    .values(deleted_us=bindparam("now_us"))
    .where(batch.c.id == bindparam("of_id"), batch.c.workspace == bindparam("of_workspace"))
    .where(batch.c.deleted_us.is_(None), batch.c.state == ENDED)
)


def list_batches(conn: Connection, workspace: str, limit: int, before_id: str | None, after_id: str | None) -> Page:
    """Return a page, newest first; the page before a cursor is the one next to it, not the newest."""
    values: dict[str, int | str] = {"workspace": workspace, "rows": limit + 1}
    cursor_id = before_id if before_id is not None else after_id
    statement = LIST_NEWEST
    if cursor_id is not None:
        cursor = conn.execute(FIND_CURSOR, {"id": cursor_id, "workspace": workspace}).scalar_one_or_none()
        if cursor is None:
            return Page((), has_more=False)
        values["cursor"] = cursor
        statement = LIST_OLDER if before_id is None else LIST_NEWER
    rows = conn.execute(statement, values).all()
    page = [batch_rows.to_batch(row) for row in rows[:limit]]
    if before_id is not None:
        page.reverse()
    return Page(tuple(page), has_more=len(rows) > limit)


def unnamed(conn: Connection, now: Moment, workspace: str, batch_id: str, credential: str) -> int | None:
    """Return the key of the young create of this batch that this credential has not named yet."""
    values = {"id": batch_id, "workspace": workspace, "credential": credential}
    return conn.execute(FIND_UNNAMED, values | {"since_us": now.wall_us - NAMED_WITHIN_US}).scalar_one_or_none()


def name_batch(conn: Connection, _now: Moment, creation_key: int) -> None:
    """Note that the credential that made this batch knows it."""
    conn.execute(NAME, {"creation": creation_key})


def cancel_batch(conn: Connection, now: Moment, workspace: str, batch_id: str) -> Batch | None:
    """Mark a batch in progress as canceling; its chunks and counts do not move here."""
    conn.execute(CANCEL, {"of_id": batch_id, "of_workspace": workspace, "now_us": now.wall_us})
    return batch_rows.find(conn, workspace, batch_id)


def delete_batch(conn: Connection, now: Moment, workspace: str, batch_id: str) -> Batch | None:
    """Mark an ended batch deleted, and return it as it was."""
    found = batch_rows.find(conn, workspace, batch_id)
    conn.execute(DELETE, {"of_id": batch_id, "of_workspace": workspace, "now_us": now.wall_us})
    return found
