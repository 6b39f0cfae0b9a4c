"""A set of rows as one bound value, so that a statement over 3,000 rows is one statement, not 3,000.

The rows travel as a JSON array of arrays. How a database unpacks it is the one thing that differs between dialects:
each registers its own compilation of `Rows` and `Item`.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from sqlalchemy import Subquery, bindparam, column, literal_column, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import Integer, Text, TypeEngine

_encode = msgspec.json.Encoder().encode


class Rows(FunctionElement[Any]):
    """The JSON rows that are bound, as a row source with one column, `value`."""

    inherit_cache = True
    name = "rows"


class Item(FunctionElement[Any]):
    """One item of a JSON row: its two arguments are the row and the position in it."""

    inherit_cache = True
    name = "item"

    def __init__(self, position: int, kind: TypeEngine[Any]) -> None:
        super().__init__(column("value"), literal_column(str(position), Integer))
        self.type = kind


def records(*columns: tuple[str, TypeEngine[Any]], bound_to: str = "rows") -> Subquery:
    """Return a row source with these columns, whose rows are the value bound to the name `bound_to`; see `packed`."""
    items = [Item(position, kind).label(name) for position, (name, kind) in enumerate(columns)]
    return select(*items).select_from(Rows(bindparam(bound_to, type_=Text)).table_valued("value")).subquery(bound_to)


def packed(rows: Iterable[Sequence[int | str | bool | None]]) -> str:
    """Return rows as the value that `records` unpacks; their values stand in the order of its columns."""
    return _encode(list(rows)).decode()


@compiles(Rows, "sqlite")
def _rows_in_sqlite(element: Rows, compiler: SQLCompiler, **options: Any) -> str:
    return f"json_each({compiler.process(element.clauses, **options)})"


@compiles(Item, "sqlite")
def _item_in_sqlite(element: Item, compiler: SQLCompiler, **options: Any) -> str:
    row, position = element.clauses
    return f"json_extract({compiler.process(row, **options)}, '$[{compiler.process(position, **options)}]')"
