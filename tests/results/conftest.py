from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.lab import Lab, lab_in


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    async with lab_in(tmp_path) as opened:
        yield opened
