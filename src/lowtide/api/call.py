"""One HTTP request to us, as a handler sees it: who calls, under which request id, and the services it may use."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive

from lowtide.api.address import base_url
from lowtide.api.credentials import Caller
from lowtide.api.services import Services


@dataclass(frozen=True, slots=True)
class Call:
    """One call that may be served. `id` is its `req_` id."""

    id: str
    request: Request
    caller: Caller
    services: Services

    @property
    def batch_id(self) -> str:
        """The batch that the path names; whether it exists is the store's to say."""
        return str(self.request.path_params["batch_id"])

    @property
    def base_url(self) -> str:
        """Our address as this client knows it, without a final slash."""
        return base_url(self.request, self.services.public_url, self.services.trusted_proxies)


async def until_gone(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Run `work` to its end, but cancel it as soon as the client is gone, and raise ClientDisconnect then.

    The server swallows what is sent to a client that has left: without this, a download would go on being read from
    the store, and a model would go on generating, for nobody. The call's body must have been read already.
    """
    working = asyncio.create_task(work)
    watching = asyncio.create_task(_disconnected(receive))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        working.result()
    finally:
        working.cancel()
        watching.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
