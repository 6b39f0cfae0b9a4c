"""`/healthz`: the process answers. `/readyz`: it can also do its work; the error says what is missing."""

from starlette.requests import Request
from starlette.responses import Response

from lowtide.api.envelope import JSON
from lowtide.api.services import Services
from lowtide.domain.errors import ContractError, ErrorType, LowtideError


async def alive(_: Request, __: Services) -> Response:
    """Return 200 whenever this process answers at all."""
    return Response(b'{"status":"ok"}', media_type=JSON)


async def ready(_: Request, services: Services) -> Response:
    """Return 200 when calls can be served, or raise a 503 that says why not."""
    try:
        await services.ready()
    except LowtideError as error:
        raise ContractError(503, ErrorType.API, f"Not ready: {type(error).__name__}: {error}") from error
    return Response(b'{"status":"ready"}', media_type=JSON)
