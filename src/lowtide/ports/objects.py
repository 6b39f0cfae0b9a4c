"""The port of the object store: immutable bytes under server-made keys.

A driver makes a put durable before it returns (content and name survive a power cut), and says the truth about damage.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object as a listing shows it."""

    key: str
    length: int


@dataclass(frozen=True, slots=True)
class ObjectRange:
    """A range of bytes of one object."""

    key: str
    offset: int
    length: int


class ObjectStore(Protocol):
    """Keys are relative paths made of server-made ids, such as `segments/<session>/<number>`."""

    async def put(self, key: str, pieces: Sequence[bytes]) -> None:
        """Store the joined pieces durably.

        A second put of equal content is success; ObjectExists for other content where the store can tell; StoreFull
        when it takes no more.
        """
        ...

    async def put_file(self, key: str, path: Path) -> None:
        """Store a finished local file durably and consume it; raises as `put` does."""
        ...

    async def read(self, key: str, offset: int, length: int) -> bytes:
        """Return exactly these bytes; ObjectMissing, or ObjectDamaged when the object is shorter."""
        ...

    async def read_many(self, ranges: Sequence[ObjectRange]) -> Sequence[bytes]:
        """Return exactly these bytes, in the order asked for, at one go; raises as `read` does.

        Results of slow models lie in many small segments: a driver pays for a hop or a wait once, not per range. The
        caller bounds the bytes and the number of ranges.
        """
        ...

    async def delete(self, key: str) -> None:
        """Remove an object; one that is gone already is success."""
        ...

    def list(self, prefix: str) -> AsyncIterator[StoredObject]:
        """Yield the objects whose key begins with `prefix`, in no promised order."""
        ...

    async def check(self) -> None:
        """Return when the store can be written to and read; raise StorageError with the reason otherwise."""
        ...
