"""Reading results, and what a client would see in them."""

import json
from collections import Counter
from collections.abc import AsyncIterator

from lowtide.domain.outcomes import Counts
from lowtide.ports.metadata import Batch
from lowtide.results.reader import Results
from support.lab import Lab


async def read_all(stream: AsyncIterator[bytes]) -> bytes:
    """Return everything a stream yields."""
    return b"".join([piece async for piece in stream])


async def results_of(lab: Lab, batch: Batch) -> bytes:
    """Return the whole results of a batch, from a reader of its own."""
    opened = await Results(lab.store, lab.objects).open(await lab.batches.get(batch))
    return await read_all(opened.stream())


def outcomes_by_id(data: bytes) -> dict[str, str]:
    """Return each line's outcome by custom_id; fails where an id has two lines."""
    lines = [json.loads(line) for line in data.splitlines()]
    found = {line["custom_id"]: line["result"]["type"] for line in lines}
    assert len(found) == len(lines)
    return found


def counts_of(data: bytes) -> Counts:
    """Return the counts that the lines of the results add up to."""
    return Counts(**Counter(outcomes_by_id(data).values()))
