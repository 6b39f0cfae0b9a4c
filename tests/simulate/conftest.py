"""A simulated server as its own process, on a port the system chose."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from support.simulated import simulated


@pytest.fixture(scope="session")
def url() -> Iterator[str]:
    """A server without delays that answers to any name and may not crash."""
    with simulated("--speed", "0") as address:
        yield address


@pytest.fixture(scope="session")
def start() -> Callable[..., AbstractContextManager[str]]:
    """Start another server with other flags: `with start("--models", "a") as url`."""
    return simulated
