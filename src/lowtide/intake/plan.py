"""The plan of a batch: which requests stand together, and in what order.

Requests are ordered by model, then by digests of their prefix levels (tools, system, growing prefixes of messages), so
that what a model server can keep in its prefix cache comes one after the other; equal keys keep the client's order.
Digests stand in for the bytes themselves because sorting whole prefixes would hold them all in memory: this holds about
a hundred bytes per request. It looks at `params` but never judges it: what cannot be run is found when it is run.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

import msgspec
import xxhash

from lowtide.domain.limits import CHUNK_REQUESTS_MAX, CHUNK_REQUESTS_MIN

CHUNK_BYTES_MAX: Final = 8 << 20
"""What a worker holds of one chunk; a single longer request has a chunk of its own."""

_CHUNKS_WANTED = 128
_LEVELS_BYTES = tuple(256 << shift for shift in range(0, 18, 2))
_GROUP_KEY_BYTES = 4 + 8 + 8
_MODEL_BYTES_MAX = 512
"""No model has a longer name; one that long is left out of the rows and refused when its request runs."""

_ABSENT = msgspec.Raw(b"")


class _Prefix(msgspec.Struct, gc=False):
    """The members of params that decide what a model server can share."""

    model: msgspec.Raw = _ABSENT
    tools: msgspec.Raw = _ABSENT
    system: msgspec.Raw = _ABSENT
    messages: msgspec.Raw = _ABSENT


_prefix = msgspec.json.Decoder(_Prefix)
_string = msgspec.json.Decoder(str)


@dataclass(frozen=True, slots=True)
class PlannedChunk:
    """Requests of one model, by their positions in the client's array, in the order they should run."""

    group: int
    model: str
    positions: list[int]


def plan(params: Sequence[msgspec.Raw]) -> Iterator[PlannedChunk]:
    """Yield the chunks of a batch in order; each position occurs once."""
    models: dict[bytes, int] = {}
    keys = [_key(raw, models) for raw in params]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    lengths = [len(memoryview(raw)) for raw in params]
    names = [_model_name(raw) for raw in models]
    size = min(max(-(-len(keys) // _CHUNKS_WANTED), CHUNK_REQUESTS_MIN), CHUNK_REQUESTS_MAX)
    group = 0
    for number, of_model in groupby(order, lambda position: int.from_bytes(keys[position][:4], "big")):
        small: list[int] = []
        small_group = group
        for _, members in groupby(of_model, lambda position: keys[position][:_GROUP_KEY_BYTES]):
            positions = list(members)
            if len(positions) >= CHUNK_REQUESTS_MIN:
                yield from _chunks(group, names[number], positions, size, lengths)
            else:
                small_group = small_group if small else group
                small += positions
            if len(small) >= size:
                yield from _chunks(small_group, names[number], small, size, lengths)
                small = []
            group += 1
        if small:
            yield from _chunks(small_group, names[number], small, size, lengths)


def _key(raw: msgspec.Raw, models: dict[bytes, int]) -> bytes:
    prefix = _prefix.decode(raw)
    messages = memoryview(prefix.messages)
    length = len(messages)
    digest = xxhash.xxh3_64_digest
    parts = [
        models.setdefault(_model_text(prefix.model), len(models)).to_bytes(4, "big"),
        digest(prefix.tools),
        digest(prefix.system),
    ]
    for level in _LEVELS_BYTES:
        if level > length:
            break
        parts.append(digest(messages[:level]))
    return b"".join(parts)


def _model_text(raw: msgspec.Raw) -> bytes:
    """Return the JSON text of a model's name; that of an empty one when there is none that could exist."""
    view = memoryview(raw)
    if 0 < len(view) <= _MODEL_BYTES_MAX and view[0] == 0x22:
        return bytes(view)
    return b'""'


def _model_name(text: bytes) -> str:
    return _string.decode(text)


def _chunks(group: int, model: str, positions: list[int], size: int, lengths: list[int]) -> Iterator[PlannedChunk]:
    """Cut requests that belong together into chunks of about `size`, as even as can be, none past its bytes."""
    count = len(positions)
    parts = max(-(-count // CHUNK_REQUESTS_MAX), count // size, 1)
    for part in range(parts):
        chunk: list[int] = []
        held = 0
        for position in positions[count * part // parts : count * (part + 1) // parts]:
            if chunk and held + lengths[position] > CHUNK_BYTES_MAX:
                yield PlannedChunk(group, model, chunk)
                chunk, held = [], 0
            chunk.append(position)
            held += lengths[position]
        yield PlannedChunk(group, model, chunk)
