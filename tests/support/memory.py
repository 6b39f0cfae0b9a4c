"""Anonymous memory of processes, sampled: what bounded-memory and the memory goals are measured by."""

import threading
from pathlib import Path
from typing import Self

SAMPLE_S = 0.01


def processes_of(pid: int) -> list[int]:
    """Return a process and all below it; empty once it is gone."""
    found = [pid]
    try:
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in task.read_text().split():
                found += processes_of(int(child))
    except (FileNotFoundError, ProcessLookupError):
        return []
    return found


def anonymous_bytes(*pids: int) -> int:
    """Return the anonymous memory of these processes together; one that is gone has none."""
    total = 0
    for pid in pids:
        try:
            status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
        except (FileNotFoundError, ProcessLookupError):
            continue
        total += sum(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("RssAnon"))
    return total


class MemoryWatch:
    """Samples a process and all below it while it is entered: the peak of each name, and of all together.

    Processes are named by `names`; those not in it, such as short-lived children, are summed as "children".
    """

    def __init__(self, pid: int, names: dict[int, str] | None = None) -> None:
        self._pid = pid
        self._names = {pid: "itself"} if names is None else names
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.base_bytes = anonymous_bytes(*processes_of(pid))
        self.peak_bytes = self.base_bytes
        self.peaks_bytes: dict[str, int] = {}

    @property
    def growth_bytes(self) -> int:
        return self.peak_bytes - self.base_bytes

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(SAMPLE_S):
            now: dict[str, int] = {}
            for pid in processes_of(self._pid):
                name = self._names.get(pid, "children")
                now[name] = now.get(name, 0) + anonymous_bytes(pid)
            self.peak_bytes = max(self.peak_bytes, sum(now.values()))
            for name, size in now.items():
                self.peaks_bytes[name] = max(self.peaks_bytes.get(name, 0), size)
