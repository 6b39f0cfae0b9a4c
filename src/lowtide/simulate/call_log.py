"""One JSON line per call, written when the call has been read: what tests count repeated calls by.

`digest` is the body's, `id` what a `[[simulate: id=…]]` mark says. The text of a call is never written. A line is
flushed before the call is answered, so a server that is killed has logged all that it answered.
"""

import time
from pathlib import Path
from typing import IO

import msgspec
from xxhash import xxh3_128_hexdigest

from lowtide.simulate.faults import Fault


class CallLog:
    """Appends to a file, or does nothing without one."""

    def __init__(self, path: Path | None) -> None:
        self._file: IO[bytes] | None = None if path is None else path.open("ab", buffering=0)
        self._number = 0

    def write(self, path: str, body: bytes, fault: Fault) -> None:
        if self._file is None:
            return
        self._number += 1
        line = {
            "number": self._number,
            "at_us": time.time_ns() // 1000,
            "path": path,
            "digest": xxh3_128_hexdigest(body),
            "id": fault.id,
            "fault": fault.kind,
        }
        self._file.write(msgspec.json.encode(line) + b"\n")
