import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from scripted import ScriptedServer

from lowtide.upstreams.config import UpstreamConfig
from lowtide.upstreams.messages import MessagesUpstream


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    server = ScriptedServer()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def connect(server: ScriptedServer) -> AsyncIterator[Callable[..., MessagesUpstream]]:
    made: list[MessagesUpstream] = []

    def connect(**settings: Any) -> MessagesUpstream:
        made.append(MessagesUpstream(UpstreamConfig(**{"name": "u", "url": server.url, **settings})))
        return made[-1]

    yield connect
    for upstream in made:
        await upstream.close()


@pytest.fixture
def upstream(connect: Callable[..., MessagesUpstream]) -> MessagesUpstream:
    return connect()
