"""The child process that reads one large body: `python -m lowtide.intake.child`.

It takes one job from standard input, bounds its own memory and CPU time, so that a hostile body can only end its own
child, and writes one report to standard output. It reads no settings and reaches no network.
"""

import gc
import os
import resource
import sys

import msgspec

from lowtide import faults
from lowtide.intake.job import Job, Report, perform

REPORT = faults.point("intake.child_report", "a child process says what became of a body")


def main() -> None:
    """Do one job."""
    data = sys.stdin.buffer.read()
    if not data:
        return  # its parent needed no child after all, or is gone
    job = msgspec.msgpack.decode(data, type=Job)
    resource.setrlimit(resource.RLIMIT_DATA, (job.memory_bytes_max, job.memory_bytes_max))
    resource.setrlimit(resource.RLIMIT_CPU, (job.cpu_s_max, job.cpu_s_max + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    gc.disable()  # one job makes no cycles, and a collection would visit a hundred thousand objects
    report: Report = perform(job)
    with REPORT:
        sys.stdout.buffer.write(msgspec.msgpack.encode(report))
        sys.stdout.buffer.flush()
    os._exit(0)  # nothing is left to tidy, and freeing a hundred thousand views takes time


if __name__ == "__main__":
    main()
