"""The object store in one local directory.

Invariant accepted-is-durable: a put returns after the content is synced, then named, then its folder and every folder
made for it are synced, in that order, so that a power cut leaves the whole object or none. A name is given by a link,
which fails where one exists: no object is ever overwritten. What a put that failed leaves behind is a hidden file, which
the next listing removes once no process holds it. Calls block, so each runs in a thread.
"""

import asyncio
import errno
import fcntl
import os
import re
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import TypeVar

from lowtide import faults
from lowtide.domain.errors import FULL_ERRNOS, ObjectDamaged, ObjectExists, ObjectMissing, StorageError, StoreFull
from lowtide.faults import FaultError
from lowtide.ports.objects import ObjectRange, StoredObject

_T = TypeVar("_T")

WRITE = faults.point("objects.write", "an object's content is written and synced, without a name")
LINK = faults.point("objects.link", "an object is given its name")
SYNC_FOLDER = faults.point("objects.sync_folder", "the folder that holds an object's name is synced")
DELETE = faults.point("objects.delete", "an object is removed")

_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")
_FULL_ERRNOS = FULL_ERRNOS | {errno.EFBIG}
_COMPARED_BYTES = 1 << 20
_LISTED_AT_ONCE = 256
_UNFINISHED = ".put-"


class LocalObjects:
    """Objects as files under `root`, which is made if it is not there."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._synced: set[Path] = set()

    async def put(self, key: str, pieces: Sequence[bytes]) -> None:
        target = self._path(key)
        await _to_its_end(lambda: self._put(target, pieces))

    async def put_file(self, key: str, path: Path) -> None:
        target = self._path(key)
        await _to_its_end(lambda: self._put_file(target, path))

    async def read(self, key: str, offset: int, length: int) -> bytes:
        target = self._path(key)
        return await asyncio.to_thread(_translating, lambda: _read(target, key, offset, length))

    async def read_many(self, ranges: Sequence[ObjectRange]) -> Sequence[bytes]:
        wanted = [(self._name_of(one.key), one.key, one.offset, one.length) for one in ranges]
        return await asyncio.to_thread(_translating, lambda: [_read(*one) for one in wanted])

    async def delete(self, key: str) -> None:
        target = self._path(key)
        await _to_its_end(lambda: self._delete(target))

    async def list(self, prefix: str) -> AsyncIterator[StoredObject]:
        walk = self._walk(prefix)
        while page := await asyncio.to_thread(_translating, lambda: list(islice(walk, _LISTED_AT_ONCE))):
            for found in page:
                yield found

    async def check(self) -> None:
        await _to_its_end(self._check)

    def _path(self, key: str) -> Path:
        return Path(self._name_of(key))

    def _name_of(self, key: str) -> str:
        """Return where an object lies; a key is checked although we made it, since it becomes a path.

        Text, for joining paths costs a download of thousands of small segments more than reading them.
        """
        if _KEY.fullmatch(key) is None:
            raise ValueError(f"{key!r} cannot be the key of an object")
        return f"{self._root}/{key}"

    # -- in a thread

    def _put(self, target: Path, pieces: Sequence[bytes]) -> None:
        with self._unfinished(target.parent) as (file, path):
            with WRITE:
                _write(file, pieces)
                os.fsync(file)
            self._name(path, target)

    def _put_file(self, target: Path, path: Path) -> None:
        self._make_folder(target.parent)
        with WRITE:
            _sync(path)
        try:
            self._name(path, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            self._copy(target, path)
        path.unlink()

    def _copy(self, target: Path, path: Path) -> None:
        """Put a file that lies in another file system, where a link cannot reach."""
        with self._unfinished(target.parent) as (file, unfinished):
            with path.open("rb") as source:
                while piece := source.read(_COMPARED_BYTES):
                    _write(file, (piece,))
            os.fsync(file)
            self._name(unfinished, target)

    def _name(self, path: Path, target: Path) -> None:
        """Give synced content its name. A name that stands already may not be synced: the put that made it died."""
        with LINK:
            try:
                os.link(path, target)
            except FileExistsError:
                if not _equal(path, target):
                    raise ObjectExists(f"another object is named {target.relative_to(self._root)}") from None
                _sync(target)
        with SYNC_FOLDER:
            _sync(target.parent)

    @contextmanager
    def _unfinished(self, folder: Path) -> Iterator[tuple[int, Path]]:
        """Yield a new hidden file of `folder`, held so that a listing leaves it alone, and remove its name in the end."""
        path = folder / f"{_UNFINISHED}{secrets.token_hex(8)}"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._make_folder(folder)
        file = os.open(path, flags, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file, path
        finally:
            with suppress(OSError):
                path.unlink()
            os.close(file)

    def _make_folder(self, folder: Path) -> None:
        """Make a folder and sync its name, and those above it, the first time that this process uses it.

        Also when it stands: the process that made it may have died before it synced it.
        """
        if folder in self._synced and folder.is_dir():
            return
        folder.mkdir(parents=True, exist_ok=True)
        for made in (folder, *folder.parents):
            _sync(made.parent)
            if made == self._root:
                break
        self._synced.add(folder)

    def _delete(self, target: Path) -> None:
        with DELETE:
            target.unlink(missing_ok=True)
        if target.parent.parent != self._root:
            with suppress(OSError):
                target.parent.rmdir()
                self._synced.discard(target.parent)

    def _walk(self, prefix: str) -> Iterator[StoredObject]:
        folders = [self._root / prefix.rpartition("/")[0]]
        while folders:
            try:
                entries = os.scandir(folders.pop())
            except FileNotFoundError:
                continue
            with entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(Path(entry.path))
                    elif entry.name.startswith(_UNFINISHED):
                        _remove_orphan(Path(entry.path))
                    elif (key := os.path.relpath(entry.path, self._root)).startswith(prefix):
                        with suppress(FileNotFoundError):
                            yield StoredObject(key, entry.stat().st_size)

    def _check(self) -> None:
        with self._unfinished(self._root) as (file, _):
            _write(file, (b"check",))
            os.fsync(file)
            if os.pread(file, 5, 0) != b"check":
                raise StorageError("the object store does not give back what was written")


async def _to_its_end(work: Callable[[], _T]) -> _T:
    """Run blocking work in a thread, and wait for its end even if the caller is cancelled.

    A put that went on alone could give an object its name after its upload was abandoned and swept.
    """
    running = asyncio.ensure_future(asyncio.to_thread(_translating, work))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait((running,))
        if not running.cancelled():
            running.exception()
        raise


def _translating(work: Callable[[], _T]) -> _T:
    try:
        return work()
    except FaultError as error:
        raise StorageError(str(error)) from error
    except OSError as error:
        if error.errno in _FULL_ERRNOS:
            raise StoreFull(f"the object store takes no more: {error.strerror}") from error
        raise StorageError(f"the object store cannot be used: {error.strerror}") from error


def _write(file: int, pieces: Sequence[bytes]) -> None:
    for piece in pieces:
        view = memoryview(piece)
        while view:
            view = view[os.write(file, view) :]


def _read(target: str | Path, key: str, offset: int, length: int) -> bytes:
    try:
        file = os.open(target, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise ObjectMissing(f"no object {key}") from None
    try:
        pieces = []
        while length and (piece := os.pread(file, length, offset)):
            pieces.append(piece)
            offset += len(piece)
            length -= len(piece)
    finally:
        os.close(file)
    if length:
        raise ObjectDamaged(f"object {key} ends at {offset}, {length} bytes too soon")
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _sync(path: Path) -> None:
    """Sync a file's content, or a folder's names."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _equal(one: Path, other: Path) -> bool:
    with one.open("rb") as left, other.open("rb") as right:
        while True:
            piece = left.read(_COMPARED_BYTES)
            if piece != right.read(_COMPARED_BYTES):
                return False
            if not piece:
                return True


def _remove_orphan(path: Path) -> None:
    """Remove the hidden file of a put whose process is dead: a live one holds its lock."""
    with suppress(FileNotFoundError, BlockingIOError), path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
