"""The body of a create, made from a file that may be larger than memory.

Two passes: the first checks every line and takes the length and the digest, the second sends. Nothing is sent before
the whole input is known to be usable, and the last bytes only if the input is still what it was: a file that changes
in between never becomes a batch. What cannot be read twice is copied to a temporary file first.
"""

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import copyfileobj
from typing import BinaryIO

import msgspec

from lowtide.client.errors import Unusable
from lowtide.client.exchange import BLOCK_BYTES, Upload

_HEAD, _COMMA, _TAIL = b'{"requests":[', b",", b"]}"


class _Request(msgspec.Struct, forbid_unknown_fields=True):
    """One line: all else about it is the server's to judge."""

    custom_id: str
    params: msgspec.Raw


@dataclass(frozen=True, slots=True)
class Source:
    """A usable input: its body, and the digest of that."""

    upload: Upload
    digest: str


class _Blocks:
    """The body in blocks, made anew each time; with a digest to keep to, the last block comes only if it is kept."""

    def __init__(self, file: BinaryIO, name: str, *, lines: bool) -> None:
        self._file, self._name, self._lines = file, name, lines
        self.digest: str | None = None

    def __iter__(self) -> Iterator[bytes]:
        sha, held = hashlib.sha256(), b""
        self._file.seek(0)
        for block in _from_lines(self) if self._lines else iter(lambda: self._file.read(BLOCK_BYTES), b""):
            sha.update(block)
            if held:
                yield held
            held = block
        if self.digest is not None and sha.hexdigest() != self.digest:
            raise Unusable(f"{self._name} changed while it was being sent; no batch was made.")
        yield held
        self.digest = sha.hexdigest()

    def read_line(self) -> bytes:
        return self._file.readline()

    def bad(self, number: int, what: str) -> Unusable:
        return Unusable(f"{self._name}, line {number}: {what}")


@contextmanager
def open_source(path: str, stdin: BinaryIO) -> Iterator[Source]:
    """Yield the input at `path` (`-`: `stdin`), checked; raises Unusable, naming a bad line by its number."""
    name = "standard input" if path == "-" else path
    with ExitStack() as files:
        try:
            file = files.enter_context(_twice(stdin) if path == "-" else _open(Path(path)))
            blocks = _Blocks(file, name, lines=_is_lines(file, name))
            length = sum(len(block) for block in blocks)
        except OSError as error:
            raise Unusable(f"{name} cannot be read: {error.strerror}.") from None
        assert blocks.digest is not None
        yield Source(Upload(length, blocks), blocks.digest)


def _open(path: Path) -> BinaryIO:
    file = path.open("rb")
    if path.is_file():
        return file
    with file:
        return _twice(file)


def _twice(stream: BinaryIO) -> BinaryIO:
    """Return a copy of what can be read only once."""
    copy: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115 it goes away with the process
    copyfileobj(stream, copy, BLOCK_BYTES)
    return copy


def _is_lines(file: BinaryIO, name: str) -> bool:
    """Tell a JSONL of requests from the body of a create, by its first key."""
    file.seek(0)
    start = file.read(BLOCK_BYTES).removeprefix(b"\xef\xbb\xbf").lstrip()
    if not start:
        raise Unusable(f"{name} is empty.")
    if start.startswith(b"["):
        raise Unusable(f'{name} is a JSON array; it should be one request per line, or {{"requests": […]}}.')
    return not start.removeprefix(b"{").lstrip().startswith(b'"requests"')


def _from_lines(blocks: _Blocks) -> Iterator[bytes]:
    """Yield the body that a JSONL makes, in blocks of about the usual size."""
    number, gathered, between = 0, bytearray(_HEAD), b""
    while line := blocks.read_line():
        number += 1
        text = line.strip() if number > 1 else line.removeprefix(b"\xef\xbb\xbf").strip()
        if not text:
            continue
        if blocks.digest is None:
            _check(blocks, number, text)
        gathered += between + text
        between = _COMMA
        if len(gathered) >= BLOCK_BYTES:
            yield bytes(gathered)
            gathered.clear()
    yield bytes(gathered + _TAIL)


def _check(blocks: _Blocks, number: int, text: bytes) -> None:
    try:
        request = msgspec.json.decode(text, type=_Request)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise blocks.bad(number, f'{error}. It should be {{"custom_id": …, "params": {{…}}}}.') from None
    if not bytes(request.params).startswith(b"{"):
        raise blocks.bad(number, "`params` should be an object.")
