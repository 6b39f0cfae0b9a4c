"""From a line to a request: what a line may be, and what is said of one that is none.

A line is `{"custom_id": …, "params": {…}}` or the params alone. It is judged here by the same checks that a worker makes
before it sends, so that what cannot succeed is told before anything runs. The bytes of `params` stay the client's own.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from lowtide.app.run.job import Fill
from lowtide.dispatch.check import Refusal, check_params
from lowtide.domain.errors import LowtideError
from lowtide.domain.ids import CUSTOM_ID_PATTERN
from lowtide.domain.splice import NotAnObject, duplicate_member, top_level

_BOM: Final = b"\xef\xbb\xbf"
_NAME_CHARS_MAX: Final = 80
_HINTS: Final = {
    "model: Field required": "give it in the line or with --model",
    "max_tokens: Field required": "give it in the line or with --max-tokens",
}
_string = msgspec.json.Decoder(str).decode


class BadLine(LowtideError):
    """A line that is no request; the text says why, without its number."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a file: its number from 1, where it begins, and its bytes without the line break."""

    number: int
    start: int
    text: bytes


@dataclass(frozen=True, slots=True)
class Entry:
    """A request as it goes into a batch."""

    custom_id: str
    params: bytes

    def item(self) -> bytes:
        """Return the request as an item of a create's `requests`."""
        return b'{"custom_id":"%b","params":%b}' % (self.custom_id.encode(), self.params)


def lines_of(path: Path, length_max: int, start: int = 0, end: int | None = None, first: int = 1) -> Iterator[Line]:
    """Yield the lines of a file that are not blank, from byte `start` (which is line `first`) up to `end`.

    Of a line longer than `length_max` only so many bytes are held, and one more that shows it.
    """
    with path.open("rb") as file:
        file.seek(start)
        number, at = first, start
        while (end is None or at < end) and (text := file.readline(length_max + 1)):
            begin, at = at, at + len(text)
            if not text.endswith(b"\n"):
                at += _skip_line(file, length_max)
            text = text.removeprefix(_BOM) if begin == 0 else text
            if text.strip():
                yield Line(number, begin, text)
            number += 1


def _skip_line(file: BinaryIO, step: int) -> int:
    skipped = 0
    while piece := file.readline(step):
        skipped += len(piece)
        if piece.endswith(b"\n"):
            break
    return skipped


class LineReader:
    """Reads lines as requests. `fetches_urls` says whether any upstream fetches image and document URLs."""

    def __init__(self, fill: Fill, *, length_max: int, fetches_urls: bool) -> None:
        self.length_max = length_max
        self._fill = fill
        self._fetches_urls = fetches_urls

    def read(self, line: Line) -> Entry:
        """Return a line's request, whole and judged; raises BadLine."""
        if len(line.text) > self.length_max:
            raise BadLine(f"longer than the {self.length_max:,} bytes that one batch may have")
        custom_id, params = self._parts(line)
        try:
            params.decode()
            params = self._fill.apply(params)
        except UnicodeDecodeError:
            raise BadLine("not valid UTF-8") from None
        except NotAnObject as error:
            raise BadLine(f"params: {error}") from None
        judged = check_params(params, fetches_urls=self._fetches_urls, profile=None)
        if isinstance(judged, Refusal):
            hint = _HINTS.get(judged.message)
            raise BadLine(f"{judged.message} ({hint})" if hint else judged.message)
        return Entry(custom_id, params)

    def custom_id(self, line: Line) -> str:
        """Return the custom_id of a line that was read before; raises BadLine."""
        return self._parts(line)[0]

    def _parts(self, line: Line) -> tuple[str, bytes]:
        try:
            members = top_level(line.text)
            twice = duplicate_member(line.text, members)
        except NotAnObject as error:
            raise BadLine(f"not a JSON object ({error})") from None
        if twice is not None:
            raise BadLine(f"{twice[:_NAME_CHARS_MAX]}: appears more than once")
        made = f"line-{line.number:06d}"
        if "params" in members:
            other = next((name for name in members if name not in {"custom_id", "params"}), None)
            if other is not None:
                raise BadLine(f"{other[:_NAME_CHARS_MAX]}: stands beside custom_id and params, where nothing else may")
            raw = members.get("custom_id")
            return made if raw is None else _custom_id(raw), bytes(members["params"])
        if "messages" in members:
            if "custom_id" in members:
                raise BadLine('custom_id: stands among the params; write {"custom_id": …, "params": {…}}')
            return made, line.text.strip()
        raise BadLine('neither {"custom_id": …, "params": {…}} nor params with messages')


def _custom_id(raw: msgspec.Raw) -> str:
    try:
        found = _string(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise BadLine("custom_id: Input should be a valid string") from None
    if not CUSTOM_ID_PATTERN.fullmatch(found):
        raise BadLine("custom_id: should be 1 to 64 letters, digits, hyphens and underscores")
    return found
