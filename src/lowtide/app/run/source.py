"""The input as a file of lines that can be read again: standard input is kept, a create body is taken apart.

A run reads its input several times (to judge it, to send it, to put results in its order), so what can be read only once
is copied into the state directory first. The digest is that of what the person gave.
"""

import hashlib
import mmap
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from lowtide.app.run.job import STDIN
from lowtide.domain.errors import SettingsError

KEPT: Final = "input.jsonl"
_GIVEN: Final = "input.given"
_PIECE_BYTES: Final = 1 << 20
_FIRST_BYTES: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Source:
    """The input: its digest, and its lines, which are in `file` of the state directory or (None) in the input itself.

    `noun` is what a line is called: that of a create body is a request of it.
    """

    digest: str
    file: str | None
    path: Path
    noun: str = "line"


class _Body(msgspec.Struct):
    requests: list[msgspec.Raw]


def source_of(given: str, state: Path, expected: str | None, *, kept_earlier: bool = False) -> Source:
    """Return the input as lines; raises SettingsError if it cannot be read, is a strange body, or has changed.

    `expected` is the digest in an earlier run; its copy, if it kept one, is taken as it is. A run that resumes needs
    its standard input no second time.
    """
    if given != STDIN:
        path = Path(given).expanduser()
        digest = _digest(path)
    else:
        path = state / _GIVEN
        digest = (None if expected and sys.stdin.isatty() else _keep_stdin(path)) or expected or ""
    if expected is not None and digest != expected:
        path = path if given != STDIN else Path("what comes from standard input")
        raise SettingsError(
            f"{path} is not what the run in {state} began with. Give it the earlier input to go on; or begin anew with "
            f"another --output; or, to forget that run and its results, remove {state}."
        )
    kept = state / KEPT
    if kept_earlier:
        return Source(digest, KEPT, kept)
    if _is_body(path):
        _take_apart(path, kept)
        return Source(digest, KEPT, kept, "request")
    if given == STDIN:
        path.replace(kept)
        return Source(digest, KEPT, kept)
    return Source(digest, None, path)


def _keep_stdin(path: Path) -> str | None:
    """Copy standard input to `path`; returns its digest, None if nothing came."""
    digest = hashlib.sha256()
    length = 0
    with path.open("wb") as file:
        for piece in _pieces(sys.stdin.buffer):
            digest.update(piece)
            length += file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest() if length else None


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            for piece in _pieces(file):
                digest.update(piece)
    except OSError as error:
        raise SettingsError(f"The input {path} cannot be read ({error.strerror}).") from None
    return digest.hexdigest()


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    while piece := file.read(_PIECE_BYTES):
        yield piece


def _is_body(path: Path) -> bool:
    """Tell whether a file is a create body: its first line is one, or no whole object and the file names `requests`."""
    with path.open("rb") as file:
        first = file.readline(_FIRST_BYTES).removeprefix(b"\xef\xbb\xbf").strip()
        if not first.startswith(b"{"):
            return False
        try:
            members = msgspec.json.decode(first, type=dict[str, msgspec.Raw])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            head = first + b" " + file.read(_FIRST_BYTES - len(first))
            return head[1:].lstrip().startswith(b'"requests"')
    return "requests" in members


def _take_apart(path: Path, lines: Path) -> None:
    """Write each request of a create body as one line. The body is mapped, not held."""
    new = lines.with_name(lines.name + ".new")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as body:
        try:
            requests = msgspec.json.decode(body, type=_Body).requests
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            text = f"The input {path} begins like the body of a create, but it is none: {error}."
            raise SettingsError(text) from None
        with new.open("wb") as out:
            # Raw line breaks stand between tokens only, so a space in their place changes no value.
            out.writelines(bytes(raw).replace(b"\n", b" ").replace(b"\r", b" ") + b"\n" for raw in requests)
            out.flush()
            os.fsync(out.fileno())
        del requests
    new.replace(lines)
