"""The two ways to a SQL database, which a driver brings and everything else is written against.

An operation whose caller was cancelled still comes to its end: it is done or not done, never half done.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection

from lowtide.faults import FaultPoint
from lowtide.storage.moments import Moment

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Transactions(ABC):
    """Runs work on a connection, as one transaction or as one consistent look."""

    @abstractmethod
    async def _write(
        self,
        fault: FaultPoint,
        work: Callable[Concatenate[Connection, Moment, _P], _T],
        *args: _P.args,
        **kwargs: _P.kwargs,
    ) -> _T:
        """Run `work` in a transaction that no other writer of the same rows overlaps; `fault` wraps its commit."""

    @abstractmethod
    async def _read(self, work: Callable[Concatenate[Connection, _P], _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Run `work` on one consistent view of the database."""

    @abstractmethod
    async def _read_now(
        self, work: Callable[Concatenate[Connection, Moment, _P], _T], *args: _P.args, **kwargs: _P.kwargs
    ) -> _T:
        """Run `work` on one consistent view of the database, with the moment."""
