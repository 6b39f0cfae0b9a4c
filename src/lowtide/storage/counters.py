"""Counters that only grow, whoever dies: workers report by how much, and the sums stand here.

A worker's own counters would begin again with each of its lives. Labels are names of the configuration or of the code,
never anything of a client's, so that the rows stay few.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
from sqlalchemy import BigInteger, Connection, Text, select, true
from sqlalchemy.dialects.postgresql import insert

from lowtide.ports.report import Count
from lowtide.storage.records import packed, records
from lowtide.storage.tables import counter

_added = records(("name", Text()), ("labels", Text()), ("value", BigInteger()))
_new = insert(counter).from_select(["name", "labels", "value"], select(_added).where(true()))
ADD: Final = _new.on_conflict_do_update(
    index_elements=[counter.c.name, counter.c.labels], set_={"value": counter.c.value + _new.excluded.value}
)
"""PostgreSQL's statement, which SQLite understands; `WHERE true` tells its parser that ON begins no join."""

ALL: Final = select(counter).order_by(counter.c.name, counter.c.labels)

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(tuple[str, ...]).decode


def add(conn: Connection, counts: Iterable[Count]) -> None:
    """Let counters grow; those of one name and label are added up first."""
    sums: Counter[tuple[str, str]] = Counter()
    for it in counts:
        sums[it.name, _encode(it.labels).decode()] += it.value
    rows = sorted((name, labels, value) for (name, labels), value in sums.items() if value > 0)
    if rows:
        conn.execute(ADD, {"rows": packed(rows)})


def values(conn: Connection) -> Sequence[Count]:
    """Return every counter."""
    return [Count(row.name, _decode(row.labels), row.value) for row in conn.execute(ALL)]
