"""The data directory of the embedded default: made, tried, and held by one `lowtide serve` at a time.

The hold is an flock on DIR/lock, which the kernel drops when its last holder dies. The API process inherits it, so
that a server started right after its predecessor was killed waits until the predecessor's API is gone: until then
the port is taken and the spool is in use.
"""

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lowtide.domain.errors import SettingsError

DATABASE = "lowtide.db"
"""The file of the database in DIR."""

ORPHAN_WAIT_S = 20.0
"""How long to wait for the API process of a server that was killed; it goes within its own grace."""
_POLL_S = 0.05


class Occupied(SettingsError):
    """Another server uses this data directory."""


def prepare(data: Path) -> Path:
    """Make the data directory if need be, write to it, and return it as an absolute path; raises SettingsError."""
    path = data.expanduser().absolute()
    trial = path / f".trial-{os.getpid()}"
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)  # prompts and replies: for nobody else's eyes
        trial.write_bytes(b"1")
        trial.unlink()
    except OSError as error:
        text = f"The data directory {path} cannot be written to ({error.strerror}); name another one with --data."
        raise SettingsError(text) from None
    return path


def empty_spool(data: Path) -> Path:
    """Return DIR/spool, made anew: what an earlier process spooled is of no use to anyone."""
    spool = data / "spool"
    shutil.rmtree(spool, ignore_errors=True)
    spool.mkdir(parents=True, exist_ok=True)
    return spool


@contextmanager
def held(data: Path, command: str = "lowtide serve") -> Iterator[int]:
    """Hold the data directory, as `command` alone may; yields the descriptor to pass on to the API process. Raises Occupied."""
    descriptor = os.open(data / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _lock(descriptor, data, command)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(descriptor: int, data: Path, command: str) -> None:
    deadline_s = time.monotonic() + ORPHAN_WAIT_S
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        holder = os.pread(descriptor, 16, 0).decode("ascii", "replace")
        if _lives(holder) or time.monotonic() > deadline_s:
            text = f"Another `{command}` (process {holder}) uses the data directory {data}; name another by --data."
            raise Occupied(text)
        time.sleep(_POLL_S)


def _lives(pid: str) -> bool:
    """Tell whether the process that wrote this number lives; a zombie does not."""
    try:
        state = (
            Path(f"/proc/{int(pid)}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[0]
        )
    except (ValueError, OSError):
        return False
    return state not in {"Z", "X"}
