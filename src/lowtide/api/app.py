"""The routes: which path and method leads to which handler, and what every call must bring.

A path that exists answers other methods with 405 and `allow`; any other path is 404, both in the contract's envelope.
`HEAD` goes wherever `GET` does. The order of the checks is the hosted service's: path, method, then what `door` wants.
"""

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import Receive, Send
from starlette.types import Scope as ASGIScope

from lowtide.api import batches, health, live, messages, models
from lowtide.api.door import Door, Handler, Operation
from lowtide.api.downloads import results
from lowtide.api.envelope import Envelope
from lowtide.api.measures import Measured, Measures
from lowtide.api.metrics import MetricsPage
from lowtide.api.services import Services
from lowtide.domain.errors import MethodNotAllowed, NotFound
from lowtide.domain.keys import Scope

_BATCHES, _MESSAGES, _ADMIN = (Scope.BATCHES,), (Scope.MESSAGES,), (Scope.ADMIN,)


def create_app(services: Services) -> Starlette:
    """Return the ASGI application that serves `services`."""
    batch, live_batch = "/v1/messages/batches/{batch_id}", "/lowtide/batches/{batch_id}"
    door, measures = Door(services), Measures()

    def serve(path: str, scopes: tuple[Scope, ...], **operations: Operation) -> Route:
        versioned = path.startswith("/v1/")
        handlers = {method: door.checked(each, scopes, versioned=versioned) for method, each in operations.items()}
        return Route(path, _Path(path, handlers, services))

    def serve_plain(path: str, handler: Handler) -> Route:
        return Route(path, _Path(path, {"GET": handler}, services))

    app = Starlette(
        routes=[
            serve("/v1/messages/batches", _BATCHES, GET=batches.list_all, POST=batches.create),
            serve(batch, _BATCHES, GET=batches.retrieve, DELETE=batches.delete),
            serve(f"{batch}/cancel", _BATCHES, POST=batches.cancel),
            serve(f"{batch}/results", _BATCHES, GET=results),
            serve("/v1/messages", _MESSAGES, POST=messages.send_message),
            serve("/v1/messages/count_tokens", _MESSAGES, POST=messages.count_tokens),
            serve("/v1/models", _BATCHES + _MESSAGES, GET=models.list_models),
            serve("/v1/models/{model_id:path}", _BATCHES + _MESSAGES, GET=models.get_model),
            serve(live_batch, _BATCHES, GET=live.progress),
            serve(f"{live_batch}/events", _BATCHES, GET=live.events),
            serve(f"{live_batch}/results", _BATCHES, GET=live.results),
            serve("/lowtide/workers", _BATCHES + _ADMIN, GET=live.workers),
            serve_plain("/metrics", door.checked_unless_local(MetricsPage(measures).show, Scope.ADMIN)),
            serve_plain("/healthz", health.alive),
            serve_plain("/readyz", health.ready),
        ],
        middleware=[Middleware(Measured, measures), Middleware(Envelope)],
    )
    app.router.redirect_slashes = False
    app.router.default = _unknown_path
    return app


async def _unknown_path(_scope: ASGIScope, _receive: Receive, _send: Send) -> None:
    raise NotFound


class _Path:
    """One path: hands each call to its method's handler."""

    def __init__(self, path: str, handlers: dict[str, Handler], services: Services) -> None:
        self._handlers = {**handlers, "HEAD": handlers["GET"]} if "GET" in handlers else handlers
        self.path = path
        self._allow = ", ".join(sorted(self._handlers))
        self._services = services

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        handler = self._handlers.get(request.method)
        if handler is None:
            raise MethodNotAllowed(self._allow)
        response = await handler(request, self._services)
        await response(scope, receive, send)
