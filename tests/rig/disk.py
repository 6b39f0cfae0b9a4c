"""A disk that forgets: replays what processes did to a folder, and gives the folder as a power cut would leave it.

Only what was synced stays for sure: the bytes of a file once `fsync` of it has returned, a name once `fsync` of its
folder has returned. What was not synced is either all dropped, or, with `chance`, some of it kept at random, sector by
sector: disks do both. It knows nothing of Lowtide.
"""

import random
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

SECTOR_BYTES = 512


@dataclass(frozen=True)
class Write:
    """Bytes at an offset; `data` None cuts the file off there."""

    sequence: int
    offset: int
    data: bytes | None


@dataclass
class File:
    """What is safe of a file, and what was done to it since."""

    safe: bytearray = field(default_factory=bytearray)
    pending: list[Write] = field(default_factory=list)


@dataclass(frozen=True)
class Naming:
    """In a folder, `name` became `target`, or nothing (None)."""

    sequence: int
    name: str
    target: "File | Folder | None"


@dataclass
class Folder:
    """The names that are safe in a folder, and what was done to them since."""

    safe: "dict[str, File | Folder]" = field(default_factory=dict)
    pending: list[Naming] = field(default_factory=list)


def apply(content: bytearray, write: Write) -> None:
    """Do to `content` what the write did."""
    if write.data is None:
        if write.offset < len(content):
            del content[write.offset :]
        else:
            content.extend(bytes(write.offset - len(content)))
        return
    if len(content) < write.offset:
        content.extend(bytes(write.offset - len(content)))
    content[write.offset : write.offset + len(write.data)] = write.data


@dataclass
class Disk:
    """A folder tree under `root`, which itself is safe. Paths are absolute; what is outside is ignored."""

    root: str
    names: dict[str, File | Folder] = field(default_factory=dict)
    sequence: int = 0

    def __post_init__(self) -> None:
        self.names[self.root] = Folder()

    def holds(self, path: str) -> bool:
        return path == self.root or path.startswith(self.root + "/")

    def _name(self, path: str, target: File | Folder | None) -> None:
        if target is None:
            self.names.pop(path, None)
        else:
            self.names[path] = target
        self.sequence += 1
        parent = self.names[str(PurePosixPath(path).parent)]
        assert isinstance(parent, Folder)
        parent.pending.append(Naming(self.sequence, PurePosixPath(path).name, target))

    # -- what processes do
    def create(self, path: str) -> None:
        if path not in self.names:
            self._name(path, File())

    def mkdir(self, path: str) -> None:
        self._name(path, Folder())

    def write(self, path: str, offset: int, data: bytes | None) -> None:
        target = self.names.get(path)
        if isinstance(target, File):
            self.sequence += 1
            target.pending.append(Write(self.sequence, offset, data))

    def length(self, path: str) -> int:
        target = self.names.get(path)
        if not isinstance(target, File):
            return 0
        content = bytearray(target.safe)
        for write in target.pending:
            apply(content, write)
        return len(content)

    def link(self, old: str, new: str) -> None:
        if old in self.names:
            self._name(new, self.names[old])

    def unlink(self, path: str) -> None:
        if path in self.names:
            self._name(path, None)

    def rename(self, old: str, new: str) -> None:
        if self.holds(old) and old in self.names:
            target = self.names[old]
            if self.holds(new):
                self._name(new, target)
            self._name(old, None)

    def sync(self, path: str, until: int) -> None:
        """Make safe what was done to a file, or to the names in a folder, up to the sequence number `until`."""
        target = self.names.get(path)
        if isinstance(target, File):
            for write in target.pending:
                if write.sequence <= until:
                    apply(target.safe, write)
            target.pending = [write for write in target.pending if write.sequence > until]
        elif isinstance(target, Folder):
            for naming in target.pending:
                if naming.sequence <= until:
                    settle(target.safe, naming)
            target.pending = [naming for naming in target.pending if naming.sequence > until]

    # -- the power cut
    def rebuild(self, target: Path, chance: random.Random | None) -> None:
        """Write what a cut now would leave to the folder `target`."""
        root = self.names[self.root]
        assert isinstance(root, Folder)
        rebuild(root, target, chance)


def rebuild(folder: Folder, target: Path, chance: random.Random | None) -> None:
    """Write what a cut would leave of a folder."""
    target.mkdir(parents=True, exist_ok=True)
    names = dict(folder.safe)
    if chance is not None:
        for naming in folder.pending[: chance.randint(0, len(folder.pending))]:
            settle(names, naming)
    for name, entry in names.items():
        if isinstance(entry, File):
            (target / name).write_bytes(after_cut(entry, chance))
        else:
            rebuild(entry, target / name, chance)


def settle(names: dict[str, File | Folder], naming: Naming) -> None:
    """Do to `names` what the naming did."""
    if naming.target is None:
        names.pop(naming.name, None)
    else:
        names[naming.name] = naming.target


def after_cut(file: File, chance: random.Random | None) -> bytes:
    """Return what a cut leaves of a file: what is safe, and, with `chance`, some sectors of the rest."""
    content = bytearray(file.safe)
    if chance is None:
        return bytes(content)
    for write in file.pending:
        if write.data is None:
            if chance.random() < 0.5:
                apply(content, write)
            continue
        for start in range(0, len(write.data), SECTOR_BYTES):
            if chance.random() < 0.5:
                piece = write.data[start : start + SECTOR_BYTES]
                apply(content, Write(write.sequence, write.offset + start, piece))
    return bytes(content)
