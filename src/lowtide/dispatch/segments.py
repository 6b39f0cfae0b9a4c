"""Building a segment: the results of all chunks of a worker since its last commit, as one object.

The lines of one batch stand together, so that a reader of that batch reads long ranges, cut into blocks of about
1 MiB that are verified one by one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from lowtide.dispatch.hold import Fresh, Hold
from lowtide.domain.checksum import checksum
from lowtide.ports.metadata import Block, Part

BLOCK_LENGTH = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment ready to be stored: its bytes and what they are."""

    pieces: Sequence[bytes]
    length: int
    blocks: Sequence[Block]
    parts: Sequence[Part]


def build(taken: Sequence[tuple[Hold, list[Fresh]]]) -> Segment:
    """Return the segment of these holds' fresh results. A hold with none adds a part of its tries or closing alone."""
    pieces: list[bytes] = []
    blocks: list[Block] = []
    parts: list[Part] = []
    offset = start = 0
    lines: list[bytes] = []
    batch_key = -1

    def cut() -> None:
        nonlocal start, lines
        if lines:
            piece = b"".join(lines)
            pieces.append(piece)
            blocks.append(Block(batch_key, start, len(piece), len(lines), checksum(piece)))
        start, lines = offset, []

    for hold, results in sorted(taken, key=lambda each: (each[0].claimed.batch_key, each[0].claimed.key)):
        if hold.claimed.batch_key != batch_key or offset - start >= BLOCK_LENGTH:
            cut()
            batch_key = hold.claimed.batch_key
        part = hold.part(results, offset)
        parts.append(part)
        lines += [result.line for result in results]
        offset += part.length
    cut()
    return Segment(pieces, offset, blocks, parts)
