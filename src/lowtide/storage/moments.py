"""The moment of a transaction, as its driver sees it.

Invariant one-clock: wall time is for what clients see (created, expires, retired); leases are judged by `lease_us`, the
database's own clock, and a lease of another `boot` is void. The driver takes the moment inside the transaction, after
the lock, so that a writer that waited does not judge by the time at which it began to wait.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Moment:
    """Now: wall time, the lease clock (both in microseconds), and what the lease clock counts from."""

    wall_us: int
    lease_us: int
    boot: str
