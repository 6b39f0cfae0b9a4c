"""One body's way from the spool to a requests object: split, plan, write. The same code runs in a thread and in a child.

`perform` never raises for what a body contains: a refusal is a value, since it may have to cross from a child process.
"""

import mmap
from pathlib import Path

import msgspec

from lowtide.domain.errors import InvalidRequest, StoreFull
from lowtide.intake.plan import plan
from lowtide.intake.split import split
from lowtide.intake.wording import too_deep
from lowtide.intake.write import write
from lowtide.ports.metadata import NewChunk

TOO_COSTLY = "The request body takes more memory or time to read than a legal one"


class Job(msgspec.Struct, frozen=True):
    """Where a body stands, where its requests object goes, and what bounds the work."""

    body: str
    output: str
    requests_max: int
    memory_bytes_max: int
    cpu_s_max: int


class Report(msgspec.Struct, frozen=True):
    """What became of a job: its chunks, or the reason why not. `full` says that the disk took no more."""

    chunks: list[NewChunk] = []
    refusal: str | None = None
    full: str | None = None


def perform(job: Job) -> Report:
    """Split, plan and write one body."""
    try:
        with Path(job.body).open("rb") as file:
            if not file.seek(0, 2):
                return Report(
                    refusal="The request body is not valid JSON: unexpected end of data: line 1 column 1 (char 0)"
                )
            body = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        requests = split(body, job.requests_max)
        return Report(chunks=write(Path(job.output), requests, plan(requests.params)))
    except InvalidRequest as error:
        return Report(refusal=error.message)
    except RecursionError:
        return Report(refusal=too_deep().message)
    except MemoryError:
        return Report(refusal=TOO_COSTLY)
    except StoreFull as error:
        return Report(full=str(error))
