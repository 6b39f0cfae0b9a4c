"""`lowtide batches results`: to a file, which survives cuts, or line by line to standard output."""

import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from lowtide.cli.batches.connection import Wanted
from lowtide.cli.batches.statuses import OK
from lowtide.cli.batches.summary import Summary, read_line
from lowtide.client.download import Sink, download
from lowtide.client.errors import ClientError, Incomplete, Unusable
from lowtide.client.following import follow
from lowtide.client.sinks import LineSink, PartFile, part_of
from lowtide.client.watching import Deadline


@dataclass(frozen=True, slots=True)
class Request:
    """What is wanted: `outcomes` are those to keep, all if there are none."""

    batch_id: str
    path: Path | None
    outcomes: frozenset[str]
    force: bool
    follow: bool
    summary: bool
    timeout_s: float | None


def get(wanted: Wanted, request: Request) -> int:
    """Get results, and print a summary of them if that is wished."""
    path = request.path
    if path is not None and path.exists() and not request.force:
        raise Unusable(f"{path} exists; --force replaces it.")
    summary = Summary() if request.summary else None
    if path is None:
        _stream(wanted, request, None if request.summary else _print, summary)
    elif request.outcomes:
        _filtered(wanted, request, path, summary)
    else:
        _whole(wanted, request, path, summary)
    if summary is not None:
        if wanted.output.json:
            wanted.output.document(msgspec.json.encode(summary.document()))
        else:
            wanted.output.line(summary.text())
    return OK


def _whole(wanted: Wanted, request: Request, path: Path, summary: Summary | None) -> None:
    """Download to a file, going on with what an earlier command left."""
    total = _total(wanted, request)
    part = PartFile(path, request.batch_id)
    if part.offset:
        wanted.output.say(f"Going on after {part.offset:,} bytes of {part_of(path)}.")
    try:
        _fill(wanted, request, part)
    except (ClientError, KeyboardInterrupt):
        part.keep()
        if part.offset:
            wanted.output.say(f"What has come is kept in {part_of(path)}; the same command goes on with it.")
        raise
    part.finish(total)
    wanted.output.say(f"{path}: {total:,} results, {part.offset:,} bytes.")
    if summary is not None:
        with path.open("rb") as lines:
            for line in lines:
                summary.add(read_line(line))


def _filtered(wanted: Wanted, request: Request, path: Path, summary: Summary | None) -> None:
    """Write the lines of some outcomes to a file, which appears when all lines were seen."""
    part = part_of(path)
    with part.open("wb") as file:

        def forget() -> None:
            file.seek(0)
            file.truncate()

        try:
            kept = _stream(wanted, request, lambda line: file.write(line + b"\n"), summary, forget)
        except BaseException:
            part.unlink()
            raise
    part.replace(path)
    wanted.output.say(f"{path}: {kept:,} of the results.")


def _stream(
    wanted: Wanted,
    request: Request,
    emit: Callable[[bytes], object] | None,
    summary: Summary | None,
    forget: Callable[[], None] | None = None,
) -> int:
    """Hand on the lines that are wanted and return their number; raises Incomplete if there were not all lines."""
    total = _total(wanted, request)
    kept = 0

    def each(text: bytes) -> None:
        nonlocal kept
        line = read_line(text) if request.outcomes or summary is not None else None
        if line is not None and request.outcomes and line.result.type not in request.outcomes:
            return
        kept += 1
        if line is not None and summary is not None:
            summary.add(line)
        if emit is not None:
            emit(text)

    sink = LineSink(each, forget if summary is None else None)
    _fill(wanted, request, sink)
    sink.finish(total)
    with suppress(ValueError):
        sys.stdout.buffer.flush()
    return kept


def _print(line: bytes) -> None:
    sys.stdout.buffer.write(line + b"\n")


def _fill(wanted: Wanted, request: Request, sink: Sink) -> None:
    if request.follow:
        follow(wanted.api, request.batch_id, sink, Deadline.within(request.timeout_s))
    else:
        download(wanted.api, request.batch_id, sink)


def _total(wanted: Wanted, request: Request) -> int:
    """Return how many lines there must be; raises Incomplete while there are not all to have."""
    found, _ = wanted.api.batch(request.batch_id)
    if not found.batch.has_ended and not request.follow:
        text = f"{request.batch_id} has not ended. Watch it (lowtide batches watch), or get what comes with --follow."
        raise Incomplete(text)
    return found.batch.request_counts.total
