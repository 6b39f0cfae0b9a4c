"""Named fault points: the places where a crash, a pause or an error would hurt most.

Each commit point of Lowtide is wrapped in one (`with SEGMENT_ROWS: await store.commit(...)`), and each is a no-op in
production. The environment variable LOWTIDE_FAULTS arms them for the crash rig: a comma list of
`name=action[:nth]`, where the action is `kill-before`, `kill-after`, `error-before`, `error-after`, `hang-before` or
`hang-after`, taken once, the nth time the point is passed (the first, unless said). Where LOWTIDE_FAULTS_TAKEN names a file, each
fault taken is written there and a later process does not take it again, so that a killed process can be started anew
and the rig knows that the point was reached. `registered()` lists all points, so that a test which walks them cannot
forget a new one. Below every layer: it imports nothing of Lowtide.
"""

import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

ACTIONS = ("kill-before", "kill-after", "error-before", "error-after", "hang-before", "hang-after")
HANG_S = float(os.environ.get("LOWTIDE_FAULT_HANG_S", "6"))
"""How long a hang blocks the process: longer than the leases of whoever arms it."""
TAKEN = Path(os.environ["LOWTIDE_FAULTS_TAKEN"]) if "LOWTIDE_FAULTS_TAKEN" in os.environ else None
"""Where faults that were taken are listed, one `name=action` a line."""


class FaultError(Exception):
    """The error that an armed fault point raises."""


@dataclass
class FaultPoint:
    """A place with a name. Enter it right before what it names, leave it right after."""

    name: str
    says: str
    _armed: str | None = None
    _countdown: int = 0

    def arm(self, action: str, nth: int = 1) -> None:
        """Take `action` the `nth` time from now that this point is passed, once."""
        if action not in ACTIONS:
            message = f"{action} is not one of {', '.join(ACTIONS)}"
            raise ValueError(message)
        self._armed, self._countdown = action, nth

    def __enter__(self) -> None:
        if self._armed is not None:
            self._countdown -= 1
            self._take("before")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._armed is not None and kind is None:
            self._take("after")

    def _take(self, moment: str) -> None:
        if self._countdown > 0 or self._armed is None or not self._armed.endswith(moment):
            return
        taken, self._armed = self._armed, None
        if TAKEN is not None:
            with TAKEN.open("a") as file:
                file.write(f"{self.name}={taken}\n")
        match taken.split("-")[0]:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "hang":
                time.sleep(HANG_S)
            case _:
                message = f"fault injected {moment} {self.name}"
                raise FaultError(message)


@dataclass
class _Registry:
    points: dict[str, FaultPoint] = field(default_factory=dict)


_registry = _Registry()


def point(name: str, says: str) -> FaultPoint:
    """Register the fault point `name`; `says` is a sentence on what happens inside it."""
    if name in _registry.points:
        message = f"the fault point {name} exists twice"
        raise ValueError(message)
    made = _registry.points[name] = FaultPoint(name, says)
    for entry in filter(None, os.environ.get("LOWTIDE_FAULTS", "").split(",")):
        wanted, _, action = entry.partition("=")
        action, _, nth = action.partition(":")
        if wanted == name and not _was_taken(name, action):
            made.arm(action, int(nth or 1))
    return made


def _was_taken(name: str, action: str) -> bool:
    return TAKEN is not None and TAKEN.exists() and f"{name}={action}" in TAKEN.read_text().splitlines()


def registered() -> dict[str, FaultPoint]:
    """Return every fault point of the modules imported so far, by name."""
    return dict(_registry.points)
