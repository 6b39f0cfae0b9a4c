"""Making a run's batches: the lines of a cut as the body of a create, handed to the same intake as any client's.

A create is named by the run's token and the place of its cut, so that a kill between the batch and the note of its id
makes no second one: the create that repeats it is told the first (`docs/semantics.md`, "Create"). A few batches are made
ahead of the work and no more, so that an input of any size is stored piece by piece.
"""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from lowtide.api.services import Services
from lowtide.app.run.manifest import Cut
from lowtide.app.run.reading import BadLine, LineReader, lines_of
from lowtide.domain.errors import ContractError, SettingsError
from lowtide.domain.ids import DEFAULT_WORKSPACE
from lowtide.intake.create import CreateCall

_PIECE_BYTES: Final = 64 * 1024
_CREDENTIAL: Final = "run"


async def create(services: Services, reader: LineReader, path: Path, cut: Cut, key: str) -> str:
    """Return the id of the batch that is made of a cut; raises SettingsError if the input or the disk is in the way."""
    call = CreateCall(
        workspace=DEFAULT_WORKSPACE,
        credential=_CREDENTIAL,
        headers={},
        body=_body(reader, path, cut),
        content_length=None,
        content_encoding=None,
        idempotency_key=key,
        retry_count=0,
        gone=_never_gone,
    )
    try:
        return (await services.intake.create(call)).batch.id
    except ContractError as refusal:
        raise SettingsError(f"The batch of lines from {cut.line} on cannot be stored: {refusal.message}.") from None


async def _never_gone() -> bool:
    return False


async def _body(reader: LineReader, path: Path, cut: Cut) -> AsyncIterator[bytes]:
    pieces, length, count = [b'{"requests":['], 0, 0
    for line in lines_of(path, reader.length_max, cut.start, cut.end, cut.line):
        try:
            item = reader.read(line).item()
        except BadLine as problem:
            raise SettingsError(f"{path} changed while it was read: line {line.number}: {problem}") from None
        pieces.append(item if count == 0 else b"," + item)
        count += 1
        length += len(item)
        if length >= _PIECE_BYTES:
            yield b"".join(pieces)
            pieces, length = [], 0
    if count != cut.count:
        raise SettingsError(f"{path} changed while it was read.")
    pieces.append(b"]}")
    yield b"".join(pieces)
