"""Noticing a file the moment it gets its name (inotify, by way of the C library).

A random pause seldom falls between a segment and its rows, which is where a zombie is most dangerous; waiting for the
segment's name and pausing its worker at once falls there often.
"""

import contextlib
import ctypes
import os
import select
import time
from pathlib import Path

IN_CREATE, IN_MOVED_TO = 0x100, 0x80
LOOK_S = 0.005
HEAD_BYTES = 16
"""An event: descriptor, mask, cookie, length of the name; then the name, padded with zeros."""


def wait_for_name(folder: Path, timeout_s: float) -> str | None:
    """Return the name of the next file, not hidden, that appears in `folder`, or None if none does in time.

    The folder itself may have yet to come.
    """
    deadline = time.monotonic() + timeout_s
    while not folder.is_dir():
        if time.monotonic() > deadline:
            return None
        time.sleep(LOOK_S)
    library = ctypes.CDLL(None, use_errno=True)
    descriptor = library.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
    if descriptor < 0:
        return None
    try:
        if library.inotify_add_watch(descriptor, os.fsencode(folder), IN_CREATE | IN_MOVED_TO) < 0:
            return None
        while select.select([descriptor], [], [], timeout_s)[0]:
            with contextlib.suppress(BlockingIOError):
                data = os.read(descriptor, 65536)
                while data:
                    length = int.from_bytes(data[12:HEAD_BYTES], "little")
                    name = data[HEAD_BYTES : HEAD_BYTES + length].rstrip(b"\0").decode()
                    if not name.startswith("."):
                        return name
                    data = data[HEAD_BYTES + length :]
        return None
    finally:
        os.close(descriptor)
