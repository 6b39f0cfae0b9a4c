"""The routes of the simulated server. Every error has the contract's envelope."""

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lowtide.domain.errors import ContractError
from lowtide.simulate.answers import Answer, json_answer, refusal, refused
from lowtide.simulate.catalogue import Catalogue
from lowtide.simulate.messages import CallerGone, Messages, authenticate, read_body
from lowtide.simulate.metrics import exposition
from lowtide.simulate.settings import ServerSettings
from lowtide.simulate.wire import read_call

_INVALID = "invalid_request_error"


class Routes:
    """What answers beside `/v1/messages`."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._catalogue = Catalogue(settings)
        self.messages = Messages(settings, self._catalogue)

    async def count_tokens(self, request: Request) -> Response:
        authenticate(request.scope, self._settings.api_key)
        call = read_call(await read_body(request.receive, self._settings.body_bytes_max), counting=True)
        self._catalogue.check(call.model)
        return _response(json_answer({"input_tokens": call.prompt.tokens}))

    async def models(self, request: Request) -> Response:
        authenticate(request.scope, self._settings.api_key)
        return _response(json_answer(self._catalogue.page(request.query_params)))

    async def model(self, request: Request) -> Response:
        authenticate(request.scope, self._settings.api_key)
        return _response(json_answer(self._catalogue.one(request.path_params["name"])))

    async def metrics(self, _request: Request) -> Response:
        return Response(exposition(self.messages.engine), media_type="text/plain; version=0.0.4")

    async def health(self, _request: Request) -> Response:
        return _response(json_answer({"status": "ok", "simulated": True}))


def create_app(settings: ServerSettings) -> Starlette:
    """Return the ASGI application; it needs `connection.Connection` as uvicorn's protocol."""
    routes = Routes(settings)
    app = Starlette(
        routes=[
            Route("/v1/messages", routes.messages, methods=["POST"]),
            Route("/v1/messages/count_tokens", routes.count_tokens, methods=["POST"]),
            Route("/v1/models", routes.models, methods=["GET"]),
            Route("/v1/models/{name:path}", routes.model, methods=["GET"]),
            Route("/metrics", routes.metrics, methods=["GET"]),
            Route("/health", routes.health, methods=["GET"]),
        ],
        exception_handlers={
            ContractError: _refused,
            HTTPException: _refused_by_starlette,
            CallerGone: _nobody_listens,
            Exception: _failed,
        },
    )
    app.router.redirect_slashes = False
    return app


def _response(answer: Answer) -> Response:
    response = Response(answer.body, answer.status)
    response.raw_headers = answer.header_list()
    return response


async def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, ContractError)
    return _response(refused(error))


async def _refused_by_starlette(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    error_type, text = ("not_found_error", "Not found") if error.status_code == 404 else (_INVALID, error.detail)
    return _response(refusal(error.status_code, error_type, text, dict(error.headers or {})))


async def _nobody_listens(_request: Request, _error: Exception) -> Response:
    return Response(status_code=499)


async def _failed(_request: Request, _error: Exception) -> Response:
    return _response(refusal(500, "api_error", "Internal server error"))
