"""What a run remembers, in one small file of its state directory: what it runs, cut into batches, and how far it is.

The file is replaced as a whole and synced, so that a kill leaves the old one or the new one. It names lines and batches,
never contents. The work itself is remembered by the database and the objects beside it.
"""

import os
from pathlib import Path
from typing import Final

import msgspec

from lowtide.app.run.job import Order
from lowtide.domain.errors import SettingsError

NAME: Final = "run.json"
VERSION: Final = 1


class Cut(msgspec.Struct, kw_only=True):
    """The lines of one batch: bytes `start` to `end` of the round's file, the first one's number, and how many requests.

    `batch` is its id once it is made; `written` how many bytes of its results are in the output (order of finish).
    """

    start: int
    end: int
    line: int
    count: int
    batch: str | None = None
    ended: bool = False
    written: int = 0


class Round(msgspec.Struct, kw_only=True):
    """One pass over requests: the whole input, or what the round before left without success.

    `file` stands in the state directory; None is the input itself, which was in lines already.
    """

    file: str | None
    cuts: list[Cut]

    @property
    def count(self) -> int:
        return sum(cut.count for cut in self.cuts)


class Written(msgspec.Struct, frozen=True):
    """The output as it was left, whole: in which order, how long, and what became of its requests."""

    order: Order
    length: int
    outcomes: dict[str, int]


class Manifest(msgspec.Struct, kw_only=True):
    """One run. `digest` is the input's, `recipe` what the flags filled in, `token` the name of its creates."""

    version: int
    token: str
    digest: str
    recipe: dict[str, str]
    rounds: list[Round]
    written: Written | None = None
    spent_s: float = 0.0

    @property
    def ended(self) -> bool:
        return all(cut.ended for one in self.rounds for cut in one.cuts)


def load(state: Path) -> Manifest | None:
    """Return what an earlier run left, or None; SettingsError if it cannot be read."""
    path = state / NAME
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, OSError) as error:
        raise SettingsError(f"The state in {path} cannot be read ({error}); remove {state} to begin anew.") from None
    if found.version != VERSION:
        raise SettingsError(f"The state in {state} is of another version of Lowtide; finish that run with it.")
    return found


def save(state: Path, manifest: Manifest) -> None:
    """Replace what is remembered; it is on disk when this returns."""
    replace(state / NAME, msgspec.json.encode(manifest))


def replace(path: Path, data: bytes) -> None:
    """Write a file so that a kill or a power cut leaves the old one or the new one."""
    new = path.with_name(path.name + ".new")
    with new.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    put_in_place(new, path)


def put_in_place(new: Path, path: Path) -> None:
    """Rename a file that is on disk over another, durably."""
    new.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
