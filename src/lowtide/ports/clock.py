"""Time as the services and drivers see it, so that tests can turn it.

Invariant one-clock: `wall_us` says when things are created, expire and retire; leases never use it, since it may
be set. `lease_ns` and `boot_id` are for storage drivers whose database has no clock of its own.
"""

import time
from pathlib import Path
from typing import Protocol


class Clock(Protocol):
    """The clocks of one machine."""

    def wall_us(self) -> int:
        """Return wall time in microseconds since 1970."""
        ...

    def boot_id(self) -> str:
        """Return what names this boot of the machine: leases of another boot are void."""
        ...

    def lease_ns(self) -> int:
        """Return nanoseconds since boot, suspended time included, equal in all processes of the machine."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def __init__(self) -> None:
        self._boot_id = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()

    def wall_us(self) -> int:
        return time.time_ns() // 1000

    def boot_id(self) -> str:
        return self._boot_id

    def lease_ns(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
