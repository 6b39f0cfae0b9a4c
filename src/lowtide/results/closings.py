"""The last stretches of the results: the lines that closed chunks imply for the requests they never resolved.

Cancel and expiry write no line and no row per request; each line is made here from the chunk's head (custom_ids, in
the order of the plan) and its closing. Only heads are read, many at a time, and each proves itself first.
"""

from collections.abc import AsyncGenerator, Sequence
from functools import partial

from lowtide.domain.chunks import decode_head
from lowtide.domain.errors import ObjectDamaged
from lowtide.domain.lines import closing_line
from lowtide.ports.metadata import Batch, Closing, MetadataStore
from lowtide.ports.objects import ObjectRange, ObjectStore
from lowtide.results.fetch import fetch
from lowtide.results.readahead import Step, Stretch

_STEP_CLOSINGS = 64
"""Chunks per step: at most 2,048 lines, about 200 kB and 2 ms of the event loop."""


async def closing_steps(store: MetadataStore, objects: ObjectStore, batch: Batch) -> AsyncGenerator[Step, None]:
    """Yield the steps of a batch's derived lines, in the order of its plan, each behind the one before."""
    after = 0
    while True:
        page = await store.closings(batch.workspace, batch.id, after, _STEP_CLOSINGS)
        if page:
            yield Step(None, partial(_read, objects, batch.request_key, page))
            after = page[-1].chunk
        if len(page) < _STEP_CLOSINGS:
            return


async def _read(objects: ObjectStore, key: str, closings: Sequence[Closing]) -> Stretch:
    """Read the heads of closed chunks and make their lines."""
    found = await fetch(objects, [ObjectRange(key, closing.offset, closing.head_length) for closing in closings])
    lines = [line for closing, head in zip(closings, found, strict=True) for line in _lines(closing, head)]
    return Stretch(b"".join(lines), len(lines))


def _lines(closing: Closing, data: memoryview) -> list[bytes]:
    head = decode_head(data, closing.head_checksum)
    if len(head.custom_ids) != closing.size:
        message = "the head of a chunk does not hold as many requests as its row says"
        raise ObjectDamaged(message)
    return [
        closing_line(custom_id, closing.outcome, closing.error)
        for index, custom_id in enumerate(head.custom_ids)
        if not closing.resolved >> index & 1
    ]
