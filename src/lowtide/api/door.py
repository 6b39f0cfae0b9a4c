"""What a call must bring before anything is done for it: a credential, calls left to make, a scope, a version.

The order is fixed, so that a call which may not be made is refused before any batch is looked up (workspace-walls), and
whoever is unknown learns no more than that. What the door found out is left in the call's state for `envelope` to tell.
"""

import math
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from ipaddress import ip_address

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Send
from starlette.types import Scope as ASGIScope

from lowtide.api.call import Call
from lowtide.api.credentials import RECHECK_S, Caller, Credentials
from lowtide.api.services import Services
from lowtide.domain.errors import InvalidRequest, RateLimited, StorageError
from lowtide.domain.keys import Scope

Handler = Callable[[Request, Services], Awaitable[ASGIApp]]
Operation = Callable[[Call], Awaitable[ASGIApp]]
_FORWARDED = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip")


class Door:
    """Lets calls through to their operations."""

    def __init__(self, services: Services) -> None:
        self._credentials = Credentials(services.access, services.clock)

    def checked(self, operation: Operation, scopes: Sequence[Scope], *, versioned: bool) -> Handler:
        """Return a handler that lets through who has one of `scopes`; `versioned` wants an `anthropic-version` too."""

        async def handle(request: Request, services: Services) -> ASGIApp:
            caller = await self.admit(request, services, scopes)
            if versioned and "anthropic-version" not in request.headers:
                raise InvalidRequest("anthropic-version: header is required")
            answer = await operation(Call(request.state.request_id, request, caller, services))
            return _WhileValid(answer, lambda: self._credentials.identify(request.headers))

        return handle

    def checked_unless_local(self, handler: Handler, *scopes: Scope) -> Handler:
        """Return `handler` for calls of this machine itself, without a key; others need one with these scopes."""

        async def handle(request: Request, services: Services) -> ASGIApp:
            if not _is_local(request):
                await self.admit(request, services, scopes)
            return await handler(request, services)

        return handle

    async def admit(self, request: Request, services: Services, scopes: Sequence[Scope]) -> Caller:
        """Return who calls; raises Unauthorized, InvalidRequest, RateLimited or Forbidden."""
        caller = await self._credentials.identify(request.headers)
        request.state.workspace = caller.workspace
        caller.require_workspace(request.headers.get("anthropic-workspace-id"))
        await _count(request, services, caller)
        caller.require(*scopes)
        return caller


class _WhileValid:
    """An answer that goes on for as long as its caller may call.

    A download or a stream of events may outlive the key that began it: before more of it is sent, the key is judged again.
    A store that does not answer ends nothing that it once allowed.
    """

    def __init__(self, answer: ASGIApp, judge: Callable[[], Awaitable[Caller]]) -> None:
        self._answer = answer
        self._judge = judge

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        judged_s = time.monotonic()

        async def send_if_valid(message: Message) -> None:
            nonlocal judged_s
            if time.monotonic() - judged_s >= RECHECK_S:
                with suppress(StorageError):
                    await self._judge()
                judged_s = time.monotonic()
            await send(message)

        await self._answer(scope, receive, send_if_valid)


async def _count(request: Request, services: Services, caller: Caller) -> None:
    own = caller.limits.calls_per_minute_max
    per_minute = services.limits.calls_per_minute_max if own is None else own
    if not per_minute:
        return
    taken = request.state.calls = await services.budget.take(caller.workspace, per_minute)
    if not taken.granted:
        raise RateLimited(
            f"This request would exceed your workspace's rate limit of {per_minute} requests per minute. "
            "Please try again later.",
            retry_after_s=math.ceil(taken.wait_s),
        )


def _is_local(request: Request) -> bool:
    """Tell whether a call comes from this machine, and not by way of a proxy on it."""
    try:
        loopback = request.client is not None and ip_address(request.client.host).is_loopback
    except ValueError:
        return False
    return loopback and not any(name in request.headers for name in _FORWARDED)
