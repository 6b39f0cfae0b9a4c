from collections.abc import Iterator
from pathlib import Path

import pytest

from contract.serving import SMALL, Served


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A Lowtide with small limits, shared by the tests of a module."""
    with Served(tmp_path_factory.mktemp("served"), limits=SMALL) as served:
        yield served


@pytest.fixture
def still(tmp_path: Path) -> Iterator[Served]:
    """A Lowtide of one's own, whose upkeep stands still."""
    with Served(tmp_path, limits=SMALL, upkeep=False) as served:
        yield served
