"""The plan of a batch: which requests stand together, and in what order.

Requests are ordered by model, then by digests of their prefix levels (tools, system, growing prefixes of messages), so
that what a model server can keep in its prefix cache comes one after the other; equal keys keep the client's order.
Digests stand in for the bytes themselves because sorting whole prefixes would hold them all in memory: this holds about
a hundred bytes per request. It looks at `params` but never judges it: what cannot be run is found when it is run.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import xxhash

from lowtide.domain.limits import CHUNK_REQUESTS_MAX, CHUNK_REQUESTS_MIN

CHUNK_BYTES_MAX: Final = 8 << 20
"""What a worker holds of one chunk; a single longer request has a chunk of its own."""

_CHUNKS_WANTED = 128
_LEVELS_BYTES = tuple(256 << shift for shift in range(0, 18, 2))
_MODEL_KEY_BYTES = 8
_GROUP_KEY_BYTES = 24
_MODEL_BYTES_MAX = 512
"""No model has a longer name; one that long is left out of the rows and refused when its request runs."""

_ABSENT = msgspec.Raw(b"")
_NOTHING = bytes(8)


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
    models = _Models()
    keys = [_key(raw, models) for raw in params]
    size = min(max(-(-len(keys) // _CHUNKS_WANTED), CHUNK_REQUESTS_MIN), CHUNK_REQUESTS_MAX)
    small_group = 0
    small: list[int] = []
    model = b""
    for group, (key, positions) in enumerate(_groups(keys)):
        if key[:_MODEL_KEY_BYTES] != model:
            yield from _chunks(small_group, models.names.get(model, ""), small, size, params)
            small, model = [], key[:_MODEL_KEY_BYTES]
        if len(positions) >= CHUNK_REQUESTS_MIN:
            yield from _chunks(group, models.names[model], positions, size, params)
        else:
            small_group = small_group if small else group
            small += positions
        if len(small) >= size:
            yield from _chunks(small_group, models.names[model], small, size, params)
            small = []
    yield from _chunks(small_group, models.names.get(model, ""), small, size, params)


class _Models:
    """The models of a batch: `names` by the digest that stands for each in the keys."""

    def __init__(self) -> None:
        self.names: dict[bytes, str] = {}
        self._digests: dict[bytes, bytes] = {}

    def digest(self, raw: msgspec.Raw) -> bytes:
        """Return what stands for a model in a key: the same for all that no model can be called."""
        written = xxhash.xxh3_64_digest(raw)
        known = self._digests.get(written)
        if known is None:
            name = _name(raw)
            known = self._digests[written] = xxhash.xxh3_64_digest(name.encode())
            self.names[known] = name
        return known


def _name(raw: msgspec.Raw) -> str:
    view = memoryview(raw)
    return _string.decode(raw) if 0 < len(view) <= _MODEL_BYTES_MAX and view[0] == 0x22 else ""


def _key(raw: msgspec.Raw, models: _Models) -> bytes:
    prefix = _prefix.decode(raw)
    digest = xxhash.xxh3_64_digest
    tools = prefix.tools
    parts = [models.digest(prefix.model), _NOTHING if tools is _ABSENT else digest(tools), digest(prefix.system)]
    messages = memoryview(prefix.messages)
    length = len(messages)
    for level in _LEVELS_BYTES:
        if level > length:
            break
        parts.append(digest(messages[:level]))
    return b"".join(parts)


def _groups(keys: list[bytes]) -> Iterator[tuple[bytes, list[int]]]:
    """Yield the groups in order of their keys, each with its positions in the order they should run."""
    members: list[int] = []
    current = b""
    for position in sorted(range(len(keys)), key=keys.__getitem__):
        key = keys[position]
        if not members or not key.startswith(current):
            if members:
                yield current, members
            current, members = key[:_GROUP_KEY_BYTES], []
        members.append(position)
    if members:
        yield current, members


def _chunks(
    group: int, model: str, positions: list[int], size: int, params: Sequence[msgspec.Raw]
) -> Iterator[PlannedChunk]:
    """Cut requests that belong together into chunks of about `size`, as even as can be, none past its bytes."""
    count = len(positions)
    if not count:
        return
    parts = max(-(-count // CHUNK_REQUESTS_MAX), count // size, 1)
    for part in range(parts):
        chunk: list[int] = []
        held = 0
        for position in positions[count * part // parts : count * (part + 1) // parts]:
            length = len(memoryview(params[position]))
            if chunk and held + length > CHUNK_BYTES_MAX:
                yield PlannedChunk(group, model, chunk)
                chunk, held = [], 0
            chunk.append(position)
            held += length
        yield PlannedChunk(group, model, chunk)
