"""`lowtide simulate` as its own process, on a port that the system chose."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def simulated(*flags: str) -> Iterator[str]:
    """Serve simulated models meanwhile; yields the address, with which the one line of output ends."""
    command = [sys.executable, "-m", "lowtide", "simulate", "--port", "0", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, "it did not start"
            yield line.split()[-1]
        finally:
            process.terminate()
