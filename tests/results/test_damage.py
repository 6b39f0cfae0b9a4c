"""A file that is not whole never looks whole: every fault raises, and no wrong byte goes out before it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lowtide.domain.errors import ObjectDamaged, ObjectMissing, StorageError
from lowtide.domain.times import DAY_US, HOUR_US
from lowtide.ports.metadata import Batch
from lowtide.results.reader import Results, ResultsFile
from support.lab import Lab
from support.reading import read_all, results_of


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _vanish(path: Path) -> None:
    path.unlink()


FAULTS = pytest.mark.parametrize(
    ("hurt", "error"), [(_flip, ObjectDamaged), (_truncate, ObjectDamaged), (_vanish, ObjectMissing)]
)


async def _read_until_it_fails(lab: Lab, batch: Batch, error: type[StorageError]) -> bytes:
    received = bytearray()
    opened = await Results(lab.store, lab.objects).open(await lab.batches.get(batch))
    with pytest.raises(error):
        await _collect(opened, received)
    return bytes(received)


async def _collect(opened: ResultsFile, received: bytearray) -> None:
    async for piece in opened.stream():
        received += piece


def _segments(lab: Lab) -> list[Path]:
    return sorted(lab.root / key for key in lab.keys("segments/"))


@FAULTS
async def test_a_hurt_segment_aborts_the_stream_before_any_wrong_byte(
    lab: Lab, hurt: Callable[[Path], None], error: type[StorageError]
) -> None:
    batch = await lab.batches.create(160)
    await lab.batches.run(batch, each=1, text_bytes=8000)
    whole = await results_of(lab, batch)
    hurt(_segments(lab)[3])
    received = await _read_until_it_fails(lab, batch, error)
    assert whole.startswith(received)
    assert 0 < len(received) < len(whole)


@FAULTS
async def test_hurt_heads_abort_the_stream_before_any_derived_line(
    lab: Lab, hurt: Callable[[Path], None], error: type[StorageError]
) -> None:
    batch = await lab.batches.create(32, params=b"")
    await lab.store.cancel_batch(batch.workspace, batch.id)
    await lab.store.close_canceling(8)
    hurt(lab.root / batch.request_key)
    assert await _read_until_it_fails(lab, batch, error) == b""


async def test_rows_that_go_while_a_client_reads_do_not_end_its_file_early(lab: Lab) -> None:
    batch = await lab.batches.create(600, chunk_size=8)
    session = await lab.store.open_session("w", 60)
    held = await lab.batches.claim(session, batch)
    number = 0
    for chunk in held:
        for index in range(chunk.size):
            await lab.batches.commit(session, number, [lab.batches.outcomes(chunk, text_bytes=4000, indexes=[index])])
            number += 1
    opened = await Results(lab.store, lab.objects).open(await lab.batches.get(batch))
    stream = opened.stream()
    received = await anext(stream)
    lab.clock.turn(DAY_US)
    await lab.store.delete_batch(batch.workspace, batch.id)
    lab.clock.turn(2 * HOUR_US)
    while await lab.store.purge(HOUR_US, 8):
        pass
    with pytest.raises(ObjectMissing):
        received += await read_all(stream)
