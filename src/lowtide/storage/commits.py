"""Recording a segment: the transaction in which results come to be.

Invariants one-winner (each part is guarded by its chunk's attempt, its state and the disjointness of its bits),
billed-iff-succeeded (usage moves in the statement that moves the bits) and ended-is-final. A part that fails its guard
is left out and the others stand. (session, number) is unique: a repeat after a lost answer finds what stood.
"""

from collections.abc import Collection, Sequence
from typing import Any

import msgspec
from sqlalchemy import (
    BigInteger,
    Boolean,
    Connection,
    Integer,
    Text,
    and_,
    bindparam,
    case,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.sql.dml import ReturningUpdate

from lowtide.domain.outcomes import Outcome
from lowtide.ports.metadata import Block, Commit, Committed, Part
from lowtide.storage import endings
from lowtide.storage.endings import USAGE
from lowtide.storage.moments import Moment
from lowtide.storage.records import packed, records
from lowtide.storage.tables import CANCELING, CLOSED, LEASED, batch, block, chunk, part, segment

FIND_SEGMENT = select(segment.c.key, segment.c.ended).where(
    segment.c.session == bindparam("session"), segment.c.number == bindparam("number")
)
FIND_PARTS = select(part.c.chunk).where(part.c.segment == bindparam("segment"))

_INT = BigInteger()
_parts = records(
    ("chunk", _INT),
    ("attempt", _INT),
    ("batch_key", _INT),
    ("bits", _INT),
    ("succeeded", Integer()),
    ("errored", Integer()),
    *((name, _INT) for name in USAGE),
    ("tries", Text()),
    ("closing", Text()),
    ("closing_error", Text()),
)
_complete = chunk.c.succeeded + chunk.c.errored + _parts.c.succeeded + _parts.c.errored == chunk.c.size
_closes = or_(_complete, _parts.c.closing.is_not(None))
RECORD: ReturningUpdate[Any] = (
    update(chunk)
    .values(
        resolved=chunk.c.resolved.bitwise_or(_parts.c.bits),
        progressed=or_(chunk.c.progressed, _parts.c.bits != 0),
        tries=case((_parts.c.tries != "", _parts.c.tries), else_=chunk.c.tries),
        state=case((_closes, CLOSED), else_=LEASED),
        session=case((_closes, None), else_=chunk.c.session),
        closing=case((_complete, None), else_=_parts.c.closing),
        closing_error=case((_complete, None), else_=_parts.c.closing_error),
        **{name: chunk.c[name] + _parts.c[name] for name in ("succeeded", "errored", *USAGE)},
    )
    .where(chunk.c.key == _parts.c.chunk, chunk.c.batch_key == _parts.c.batch_key)
    .where(chunk.c.attempt == _parts.c.attempt, chunk.c.state == LEASED)
    .where(chunk.c.resolved.bitwise_and(_parts.c.bits) == 0, _parts.c.bits.bitwise_rshift(chunk.c.size) == 0)
    .where(
        batch.c.key == chunk.c.batch_key,
        or_(
            _parts.c.closing.is_(None),
            _parts.c.closing == Outcome.ERRORED.value,
            and_(_parts.c.closing == Outcome.CANCELED.value, batch.c.state == CANCELING),
        ),
    )
    .returning(chunk.c.key, chunk.c.batch_key, chunk.c.state)
)

ADD_SEGMENT = insert(segment).returning(segment.c.key)
_PART_COLUMNS = (("chunk", _INT), ("attempt", _INT), ("offset", _INT), ("length", _INT), ("bits", _INT))
_accepted = records(*_PART_COLUMNS)
ADD_PARTS = insert(part).from_select(
    ["segment", *(name for name, _ in _PART_COLUMNS)],
    select(bindparam("of_segment", type_=_INT), *(_accepted.c[name] for name, _ in _PART_COLUMNS)),
)
_BLOCK_COLUMNS = (
    ("batch_key", _INT),
    ("offset", _INT),
    ("length", _INT),
    ("lines", Integer()),
    ("checksum", _INT),
    ("refused", Boolean()),
)
_kept = records(*_BLOCK_COLUMNS)
ADD_BLOCKS = insert(block).from_select(
    ["segment", *(name for name, _ in _BLOCK_COLUMNS)],
    select(bindparam("of_segment", type_=_INT), *(_kept.c[name] for name, _ in _BLOCK_COLUMNS)),
)

_encode = msgspec.json.Encoder().encode
_decode_ids = msgspec.json.Decoder(list[str]).decode


def commit(conn: Connection, now: Moment, new: Commit) -> Committed:
    """Record a segment's accepted parts, close what they complete, and end what that ends."""
    asked = frozenset(it.chunk for it in new.parts)
    if len(asked) < len(new.parts):
        raise ValueError("a commit has one part per chunk")
    stood = conn.execute(FIND_SEGMENT, {"session": new.session, "number": new.number}).one_or_none()
    if stood is not None:
        accepted = frozenset(conn.execute(FIND_PARTS, {"segment": stood.key}).scalars())
        return Committed(accepted, asked - accepted, _decode_ids(stood.ended))
    parts = sorted(new.parts, key=lambda it: it.chunk)
    recorded = conn.execute(RECORD, {"rows": packed(map(_part_row, parts))}).all()
    accepted = frozenset(row.key for row in recorded)
    ended = endings.settle(conn, now, [row.batch_key for row in recorded if row.state == "closed"])
    if accepted:
        _add_segment(conn, now, new, accepted, ended)
    return Committed(accepted, asked - accepted, ended)


def _add_segment(conn: Connection, now: Moment, new: Commit, accepted: Collection[int], ended: Sequence[str]) -> None:
    values = {
        "session": new.session,
        "number": new.number,
        "object_key": new.segment_key,
        "length": new.segment_length,
        "ended": _encode(ended).decode(),
        "committed_us": now.wall_us,
    }
    key = conn.execute(ADD_SEGMENT, values).scalar_one()
    taken = [it for it in new.parts if it.chunk in accepted]
    rows = packed((it.chunk, it.attempt, it.offset, it.length, it.bits) for it in taken)
    conn.execute(ADD_PARTS, {"of_segment": key, "rows": rows})
    kept = [row for it in new.blocks if (row := _block_row(it, new.parts, accepted)) is not None]
    if kept:
        conn.execute(ADD_BLOCKS, {"of_segment": key, "rows": packed(kept)})


def _block_row(it: Block, parts: Sequence[Part], accepted: Collection[int]) -> tuple[int | bool, ...] | None:
    """Return a block's row, or None when none of its lines was accepted."""
    inside = [
        each.chunk in accepted
        for each in parts
        if each.length and each.offset < it.offset + it.length and it.offset < each.offset + each.length
    ]
    if not any(inside):
        return None
    return (it.batch_key, it.offset, it.length, it.lines, it.checksum, not all(inside))


def _part_row(it: Part) -> tuple[int | str | None, ...]:
    usage = (
        it.usage.input_tokens,
        it.usage.output_tokens,
        it.usage.cache_creation_input_tokens,
        it.usage.cache_read_input_tokens,
    )
    error = None if it.closing_error is None else it.closing_error.decode()
    closing = None if it.closing is None else it.closing.value
    counts = (it.bits, it.succeeded, it.errored)
    return (it.chunk, it.attempt, it.batch_key, *counts, *usage, it.tries.hex(), closing, error)
