"""The routes: which path and method leads to which handler, and what every call must bring.

A path that exists answers other methods with 405 and `allow`; any other path is 404, both in the contract's envelope.
`HEAD` goes wherever `GET` does. The order of the checks is the hosted service's: path, method, credential, version.
"""

from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from lowtide.api import batches, health, messages, models
from lowtide.api.call import Call
from lowtide.api.credentials import identify
from lowtide.api.downloads import results
from lowtide.api.envelope import Envelope
from lowtide.api.services import Services
from lowtide.domain.errors import InvalidRequest, MethodNotAllowed, NotFound

Handler = Callable[[Request, Services], Awaitable[ASGIApp]]
Operation = Callable[[Call], Awaitable[ASGIApp]]


def create_app(services: Services) -> Starlette:
    """Return the ASGI application that serves `services`."""
    batch = "/v1/messages/batches/{batch_id}"

    def serve(path: str, **operations: Operation) -> Route:
        return Route(path, _Path({method: _checked(operation) for method, operation in operations.items()}, services))

    app = Starlette(
        routes=[
            serve("/v1/messages/batches", GET=batches.list_all, POST=batches.create),
            serve(batch, GET=batches.retrieve, DELETE=batches.delete),
            serve(f"{batch}/cancel", POST=batches.cancel),
            serve(f"{batch}/results", GET=results),
            serve("/v1/messages", POST=messages.send_message),
            serve("/v1/messages/count_tokens", POST=messages.count_tokens),
            serve("/v1/models", GET=models.list_models),
            serve("/v1/models/{model_id:path}", GET=models.get_model),
            Route("/healthz", _Path({"GET": health.alive}, services)),
            Route("/readyz", _Path({"GET": health.ready}, services)),
        ],
        middleware=[Middleware(Envelope)],
    )
    app.router.redirect_slashes = False
    app.router.default = _unknown_path
    return app


async def _unknown_path(_scope: Scope, _receive: Receive, _send: Send) -> None:
    raise NotFound


class _Path:
    """One path: hands each call to its method's handler."""

    def __init__(self, handlers: dict[str, Handler], services: Services) -> None:
        self._handlers = {**handlers, "HEAD": handlers["GET"]} if "GET" in handlers else handlers
        self._allow = ", ".join(sorted(self._handlers))
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        handler = self._handlers.get(request.method)
        if handler is None:
            raise MethodNotAllowed(self._allow)
        response = await handler(request, self._services)
        await response(scope, receive, send)


def _checked(operation: Operation) -> Handler:
    """Return a handler that lets through what brings all that the contract wants of every call."""

    async def handle(request: Request, services: Services) -> ASGIApp:
        caller = identify(request.headers)
        if "anthropic-version" not in request.headers:
            raise InvalidRequest("anthropic-version: header is required")
        return await operation(Call(request.state.request_id, request, caller, services))

    return handle
