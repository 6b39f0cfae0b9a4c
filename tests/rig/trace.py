"""Reading what `strace` saw: the calls of all processes on files, in order of time, as steps of a `Disk`.

`COMMAND` is what the traced program is started under. Names and data are hexadecimal in the log, so that a line is a line.
A call that could change a file in a way that the `Disk` does not know raises Unknown: silence would prove nothing.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.rig.disk import Disk

KNOWN = (
    "openat,open,creat,write,pwrite64,writev,pwritev,pwritev2,lseek,ftruncate,truncate,fsync,fdatasync,"
    "rename,renameat,renameat2,link,linkat,unlink,unlinkat,mkdir,mkdirat,rmdir"
)
STRANGE = "copy_file_range,sendfile,splice,fallocate,sync_file_range,symlink,symlinkat"
DATA_BYTES_MAX = 16 * 1024 * 1024
UNSYNCED = ("-shm",)
"""What SQLite builds anew after a cut, whatever is left of it."""


def command(folder: Path) -> list[str]:
    """Return the words that start a program under strace, which writes one log per thread into `folder`."""
    return [
        *("strace", "-ff", "--seccomp-bpf", "-qq", "-y", "-xx", "-T", "--absolute-timestamps=unix,ns"),
        *("-s", str(DATA_BYTES_MAX), "-e", f"trace={KNOWN},{STRANGE}", "-e", "signal=none", "-o", str(folder / "t")),
    ]


class Unknown(Exception):
    """A traced call that the replay cannot do."""


@dataclass(frozen=True)
class Call:
    """One call that succeeded: when it began, when it returned, its arguments and what it returned."""

    began: float
    returned: float
    name: str
    arguments: str
    result: str


_LINE = re.compile(r"^(\d+\.\d+) (\w+)\((.*)\) += (-?\w+)(<[^>]*>)?.*?(?: <(\d+\.\d+)>)?$")
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_DESCRIPTOR = re.compile(r"^(?:\d+|AT_FDCWD)<((?:\\x[0-9a-f]{2})*)>(?!\(deleted\))")


def unhex(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


def calls(folder: Path, root: str) -> list[Call]:
    """Return the calls of all threads that name something under `root`, in order of their beginning."""
    mark = "".join(f"\\x{byte:02x}" for byte in root.encode())
    found = []
    for log in folder.glob("t.*"):
        with log.open(encoding="ascii", errors="replace") as lines:
            found += [call for line in lines if mark in line and (call := parse(line.rstrip("\n"))) is not None]
    return sorted(found, key=lambda call: call.began)


def parse(line: str) -> Call | None:
    """Return the call of one line of a log, or None for one that failed or never returned."""
    match = _LINE.match(line)
    if match is None or match[4].startswith("-") or match[4] == "?":
        return None
    result = match[4] + (match[5] or "")
    return Call(float(match[1]), float(match[1]) + float(match[6] or 0), match[2], match[3], result)


@dataclass(frozen=True)
class Step:
    """A call as it reaches the disk at `at`: a change when it begins, a sync (of what was done before) when it returns."""

    at: float
    call: Call
    ends: bool


def steps(found: list[Call]) -> list[Step]:
    """Return the steps of the calls, in order of time."""
    made = [Step(call.began, call, ends=False) for call in found]
    made += [Step(call.returned, call, ends=True) for call in found if call.name in {"fsync", "fdatasync"}]
    return sorted(made, key=lambda step: step.at)


@dataclass
class Replay:
    """Does calls to a disk. `forget` names the paths whose syncs are taken as never made (a planted bug)."""

    disk: Disk
    forget: re.Pattern[str] | None = None

    def __post_init__(self) -> None:
        self._offsets: dict[str, int] = {}
        self._syncs: dict[int, int] = {}

    def do(self, step: Step) -> None:
        call = step.call
        if call.name in STRANGE.split(","):
            raise Unknown(f"{call.name} on the data directory")
        if call.name in {"fsync", "fdatasync"}:
            self._sync(call, ends=step.ends)
        elif call.name in {"openat", "open", "creat"}:
            self._open(call)
        elif call.name in {"write", "pwrite64", "writev", "pwritev", "pwritev2", "ftruncate", "lseek"}:
            self._on_descriptor(call)
        else:
            self._on_names(call)

    def _sync(self, call: Call, *, ends: bool) -> None:
        path = descriptor(call)
        if path is None or (self.forget is not None and self.forget.search(path)):
            return
        if ends:
            self.disk.sync(path, self._syncs.pop(id(call)))
        else:
            self._syncs[id(call)] = self.disk.sequence

    def _open(self, call: Call) -> None:
        path = unhex(call.result[call.result.index("<") + 1 : -1]).decode() if "<" in call.result else ""
        if not self.disk.holds(path) or path.endswith(UNSYNCED):
            return
        if "O_TMPFILE" in call.arguments:
            raise Unknown("O_TMPFILE on the data directory")
        if "O_CREAT" in call.arguments or call.name == "creat":
            self.disk.create(path)
        if "O_TRUNC" in call.arguments or call.name == "creat":
            self.disk.write(path, 0, None)
        if "O_WRONLY" in call.arguments or "O_RDWR" in call.arguments or call.name == "creat":
            self._offsets[path] = self.disk.length(path) if "O_APPEND" in call.arguments else 0

    def _on_descriptor(self, call: Call) -> None:
        path = descriptor(call)
        if path is None or not self.disk.holds(path) or path.endswith(UNSYNCED):
            return
        if call.name == "lseek":
            self._offsets[path] = int(call.result)
        elif call.name == "ftruncate":
            self.disk.write(path, int(call.arguments.rsplit(",", 1)[1]), None)
        else:
            data = b"".join(unhex(piece) for piece in _STRING.findall(call.arguments))[: int(call.result)]
            if len(data) != int(call.result):
                raise Unknown(f"{call.name} of {call.result} bytes, of which the log has {len(data)}")
            if call.name in {"pwrite64", "pwritev", "pwritev2"}:
                words = call.arguments.rsplit(",", 2 if call.name == "pwritev2" else 1)
                self.disk.write(path, int(words[1]), data)
            else:
                offset = self._offsets.get(path, 0)
                self.disk.write(path, offset, data)
                self._offsets[path] = offset + len(data)

    def _on_names(self, call: Call) -> None:
        paths = list(named(call))
        match call.name:
            case "mkdir" | "mkdirat":
                if self.disk.holds(paths[0]) and paths[0] != self.disk.root:
                    self.disk.mkdir(paths[0])
            case "rename" | "renameat" | "renameat2":
                self.disk.rename(paths[0], paths[1])
                self._offsets.pop(paths[0], None)
            case "link" | "linkat":
                if not self.disk.holds(paths[0]):
                    raise Unknown(f"a link from {paths[0]}")
                self.disk.link(paths[0], paths[1])
            case "unlink" | "unlinkat" | "rmdir":
                self.disk.unlink(paths[0])
            case "truncate":
                self.disk.write(paths[0], int(call.arguments.rsplit(",", 1)[1]), None)
            case other:
                raise Unknown(other)


def descriptor(call: Call) -> str | None:
    """Return the path of a call's descriptor, or None if the file has no name any more."""
    match = _DESCRIPTOR.match(call.arguments)
    return unhex(match[1]).decode() if match else None


def named(call: Call) -> Iterator[str]:
    """Yield the paths that a call names, each taken from the folder it is relative to."""
    folder = b""
    for match in re.finditer(r'(?:AT_FDCWD|\d+)<((?:\\x[0-9a-f]{2})*)>|"((?:\\x[0-9a-f]{2})*)"', call.arguments):
        if match[1] is not None:
            folder = unhex(match[1])
        else:
            path = unhex(match[2])
            yield (path if path.startswith(b"/") else folder + b"/" + path).decode()
