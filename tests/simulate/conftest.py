"""A simulated server as its own process, on a port the system chose."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

URL = re.compile(r"http://\S+")


@contextmanager
def simulated(*flags: str) -> Iterator[str]:
    command = [Path(sys.executable).with_name("lowtide"), "simulate", "--port", "0", *flags]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        line = child.stdout.readline()
        found = URL.search(line)
        assert found, "it did not start"
        yield found[0]
    finally:
        child.terminate()
        child.wait()
        child.stdout.close()


@pytest.fixture(scope="session")
def url() -> Iterator[str]:
    """A server without delays that answers to any name and may not crash."""
    with simulated("--speed", "0") as address:
        yield address


@pytest.fixture(scope="session")
def start() -> Callable[..., AbstractContextManager[str]]:
    """Start another server with other flags: `with start("--models", "a") as url`."""
    return simulated
