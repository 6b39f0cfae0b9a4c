"""What the machine gives: room on the disk and how fast it flushes, the clock, and how many files may be open."""

import ctypes
import errno
import os
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from lowtide.app.doctor.findings import Finding, fail, length_text, ok, warn
from lowtide.app.settings import Settings

GIB: Final = 1024**3
FREE_FAIL, FREE_WARN = GIB, 10 * GIB
INODES_WARN: Final = 10_000
FSYNC_WARN_S: Final = 0.030
_FSYNCS: Final = 16
_NETWORK: Final = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "ceph", "glusterfs"})
_MEMORY: Final = frozenset({"tmpfs", "ramfs"})
_OLDEST_S: Final = 1_767_225_600
"""The start of 2026: no machine that runs this is older."""
_UNSYNCHRONIZED: Final = 5
"""TIME_ERROR, what adjtimex(2) returns for a clock that nothing keeps right."""
_TIMEX_BYTES: Final = 1024
_FILES_OF_OUR_OWN: Final = 256


def check_disk(place: Path) -> Iterator[Finding]:
    """Look at the file system under the data directory, or under where it would be made."""
    usage = shutil.disk_usage(place)
    free = f"{length_text(usage.free)} free of {length_text(usage.total)}"
    do = "Make room, or name a larger disk with --data; creates are refused when it is full."
    if usage.free < FREE_FAIL:
        yield fail("disk space", free, do)
    elif usage.free < FREE_WARN:
        yield warn("disk space", free, do)
    else:
        yield ok("disk space", free)
    inodes = os.statvfs(place)
    if inodes.f_files and inodes.f_favail < INODES_WARN:
        yield warn("disk inodes", f"{inodes.f_favail} left", "Each commit is a file until merged: make room for them.")
    yield _file_system(place)


def _file_system(place: Path) -> Finding:
    kind = file_system_of(place, Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace"))
    if kind in _NETWORK:
        return fail("file system", f"{kind} is a network file system", "SQLite needs a local disk: name one by --data.")
    if kind in _MEMORY:
        return warn(
            "file system", f"{kind} is memory", "Everything is lost when the machine stops: name a disk by --data."
        )
    return ok("file system", kind)


def file_system_of(place: Path, mounts: str) -> str:
    """Return the kind of file system that holds a path, from the text of /proc/self/mounts."""
    found, kind = -1, "unknown"
    for line in mounts.splitlines():
        fields = line.split()
        mount = Path(fields[1].encode().decode("unicode_escape"))
        if place.is_relative_to(mount) and len(mount.parts) >= found:
            found, kind = len(mount.parts), fields[2]
    return kind


def check_fsync(place: Path) -> Iterator[Finding]:
    """Measure what a commit costs: a small write, made durable."""
    took_s: list[float] = []
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            for _ in range(_FSYNCS):
                file.write(b"\0" * 4096)
                file.flush()
                began_s = time.perf_counter()
                os.fsync(file.fileno())
                took_s.append(time.perf_counter() - began_s)
    except OSError as error:
        yield fail(
            "fsync", f"a file cannot be written in {place} ({error.strerror})", "Mend the disk or its permissions."
        )
        return
    median_s = statistics.median(took_s)
    text = f"{median_s * 1000:.2f} ms, {max(took_s) * 1000:.2f} ms at worst"
    if median_s > FSYNC_WARN_S:
        yield warn("fsync", text, "Each create and each commit waits for it: a solid-state disk would serve better.")
    else:
        yield ok("fsync", text)


def check_clock() -> Iterator[Finding]:
    """Look at the wall clock, by which batches expire; leases go by another one."""
    shown = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    if time.time() < _OLDEST_S:
        yield fail("clock", f"it shows {shown}", "Set the clock: batches expire by it.")
    elif _kernel_says() == _UNSYNCHRONIZED:
        do = "Turn on time synchronization (timedatectl set-ntp true), unless the host does it for this machine."
        yield warn("clock", f"{shown}, kept right by nothing that the kernel knows", do)
    else:
        yield ok("clock", shown)


def _kernel_says() -> int:
    """Return the state of the clock from adjtimex(2), asked with all modes off: it changes nothing."""
    return int(ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES)))


def check_open_files(settings: Settings) -> Iterator[Finding]:
    """Compare the limit on open files with the calls in flight of one worker; each has a connection."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = sum(upstream.in_flight_max for upstream in settings.upstreams) + _FILES_OF_OUR_OWN
    text = f"{'no limit' if soft == resource.RLIM_INFINITY else soft} (a worker needs about {needed})"
    if soft == resource.RLIM_INFINITY or soft >= needed:
        yield ok("open files", text)
        return
    enough = hard == resource.RLIM_INFINITY or hard >= needed
    do = f"ulimit -n {needed}" if enough else f"Raise the hard limit ({hard}) too, or lower in_flight_max."
    yield fail("open files", text, do)


def check_data(data: Path) -> Iterator[Finding]:
    """Look at who may do what in the data directory; prompts and results lie there."""
    if not data.exists():
        parent = nearest(data)
        if os.access(parent, os.W_OK | os.X_OK):
            yield ok("data", f"{data} does not exist; it is made at the first start")
        else:
            yield fail(
                "data", f"{data} cannot be made in {parent}", "Name a directory that you may write to by --data."
            )
        return
    if not data.is_dir():
        yield fail("data", f"{data} is no directory", "Name another by --data.")
        return
    foreign = [path.name for path in (data, *sorted(data.iterdir())) if not os.access(path, os.R_OK | os.W_OK)]
    if foreign:
        do = f"It was used as another user: chown -R {os.geteuid()} {data}, or run as that user."
        yield fail("data", f"{', '.join(foreign)} of {data} cannot be written to", do)
    elif _open_to_others(data):
        yield warn("data", f"{data} is open to every user of this machine", f"chmod 700 {data}")
    else:
        yield ok("data", f"{data}, for this user")


def nearest(path: Path) -> Path:
    """Return the path, or the nearest of its parents that exists."""
    return next(each for each in (path, *path.parents) if each.exists())


def _open_to_others(data: Path) -> bool:
    """Tell whether others may enter and read it: all that leads there would have to let them."""
    try:
        return bool(data.stat().st_mode & 0o004) and all(path.stat().st_mode & 0o001 for path in (data, *data.parents))
    except OSError as error:
        return error.errno != errno.EACCES
