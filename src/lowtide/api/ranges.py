"""Ranges and entity tags of a download (RFC 9110, sections 13 and 14), free of I/O.

A single range of bytes is served; several, or a header that is none, are ignored, as the RFC allows: the whole file is
then the answer. Results never change after a batch has ended, so a strong tag names them for good.
"""

import re
from dataclasses import dataclass

_RANGE = re.compile(r"bytes[ \t]*=[ \t]*([0-9]{0,18})[ \t]*-[ \t]*([0-9]{0,18})[ \t]*", re.IGNORECASE | re.ASCII)
_TAG = re.compile(r'(?:W/)?("[^"]*")')


@dataclass(frozen=True, slots=True)
class Span:
    """The bytes from `start` up to, not including, `end`."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """A range as a client wrote it: `first-last`, `first-` or `-suffix`."""

    first: int | None
    last: int | None

    def within(self, size: int) -> Span | None:
        """Return the bytes of a file of `size` that are meant, or None when it has none of them."""
        if self.first is None:
            suffix = min(self.last or 0, size)
            return Span(size - suffix, size) if suffix else None
        if self.first >= size:
            return None
        return Span(self.first, size if self.last is None else min(self.last + 1, size))


def read_range(header: str | None, if_range: str | None, etag: str) -> Wanted | None:
    """Return the range that counts: one well-formed range, of the file that the client began to read."""
    if header is None or (if_range is not None and if_range.strip() != etag):
        return None
    found = _RANGE.fullmatch(header.strip())
    if found is None or found[1] == found[2] == "":
        return None
    first = int(found[1]) if found[1] else None
    last = int(found[2]) if found[2] else None
    if first is not None and last is not None and last < first:
        return None
    return Wanted(first, last)


def is_known(if_none_match: str | None, etag: str) -> bool:
    """Tell whether the client has this file already; tags compare weakly here."""
    if if_none_match is None:
        return False
    return if_none_match.strip() == "*" or etag in _TAG.findall(if_none_match)
