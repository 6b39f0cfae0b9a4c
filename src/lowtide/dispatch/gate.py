"""The gate: how many tries may be in flight to one upstream.

A fixed limit so far, in a module of its own because the limit will become adaptive, and belong to the replica: shared by
all workers. Invariant: `in_flight` never passes `limit`.
"""


class Gate:
    """Counts what is in flight against a limit."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.in_flight = 0

    @property
    def room(self) -> int:
        return self.limit - self.in_flight

    def enter(self) -> None:
        if self.in_flight >= self.limit:
            raise RuntimeError("a try passed a full gate")
        self.in_flight += 1

    def leave(self) -> None:
        self.in_flight -= 1
