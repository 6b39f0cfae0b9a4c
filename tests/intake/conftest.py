"""What the intake tests share: a body on disk, split as `Intake` does it."""

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from lowtide.domain.chunks import Request, decode_head, decode_requests
from lowtide.intake.job import Job, Report, perform
from lowtide.ports.metadata import NewChunk

Performed = Callable[..., Report]


@pytest.fixture
def perform_body(tmp_path: Path) -> Performed:
    """Return a function that splits a body's bytes into `tmp_path/out` and returns the report."""

    def perform_it(body: bytes | Iterable[bytes], requests_max: int = 100_000) -> Report:
        path, output = tmp_path / "body", tmp_path / "out"
        output.unlink(missing_ok=True)
        with path.open("wb") as file:
            file.writelines([body] if isinstance(body, bytes) else body)
        return perform(Job(str(path), str(output), requests_max, 0, 0))

    return perform_it


@pytest.fixture
def refusal(perform_body: Performed) -> Callable[..., str | None]:
    """Return a function that gives the text with which a body is refused, None if it is accepted."""

    def refuse(body: bytes | Iterable[bytes], requests_max: int = 100_000) -> str | None:
        return perform_body(body, requests_max).refusal

    return refuse


@pytest.fixture
def stored(tmp_path: Path) -> Callable[[Report], list[tuple[NewChunk, list[int], list[Request]]]]:
    """Return a function that reads a report's chunks back: each with its positions and its requests."""

    def read(report: Report) -> list[tuple[NewChunk, list[int], list[Request]]]:
        assert report.refusal is None
        data = (tmp_path / "out").read_bytes()
        assert sum(chunk.length for chunk in report.chunks) == len(data)
        found = []
        for chunk in report.chunks:
            piece = data[chunk.offset : chunk.offset + chunk.length]
            head = decode_head(piece[: chunk.head_length], chunk.head_checksum)
            requests = decode_requests(piece, chunk.head_length, chunk.head_checksum, 0)
            assert len(requests) == chunk.size
            found.append((chunk, head.positions, requests))
        return found

    return read
