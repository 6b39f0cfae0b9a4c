"""`GET /v1/models` and `GET /v1/models/{id}`: what all upstreams list, each name once, newest first.

An alias is listed beside them, unless it has a wildcard. An upstream that cannot be asked is left out of a listing. A
single model is unknown only if every upstream that could have it has answered: one that is down makes the
answer 529, not 404. What a key may not use is not there for it.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from starlette.responses import Response

from lowtide.api.call import Call
from lowtide.api.messages import told
from lowtide.api.paging import cut, read_cursor
from lowtide.api.wire import json_response, listing, model_info
from lowtide.domain.errors import NotFound
from lowtide.domain.keys import allows
from lowtide.ports.upstream import Model, Upstream, UpstreamError


async def list_models(call: Call) -> Response:
    """`GET /v1/models`: a page of what the upstreams that answer offer; an error only when none does."""
    cursor = read_cursor(call.request.query_params)
    found, failed = await _ask(call.services.upstreams)
    if failed and not found:
        raise told(failed[0]) from failed[0]
    page, has_more = cut([model for model in found if allows(call.caller.models, model.id)], cursor)
    return json_response(listing([model_info(model) for model in page], has_more=has_more))


async def get_model(call: Call) -> Response:
    """`GET /v1/models/{model_id}`."""
    model_id = str(call.request.path_params["model_id"])
    if not allows(call.caller.models, model_id):
        raise NotFound(f"model: {model_id}")
    found, failed = await _ask([upstream for upstream in call.services.upstreams if upstream.serves(model_id)])
    model = next((model for model in found if model.id == model_id), None)
    if model is not None:
        return json_response(model_info(model))
    if failed:
        raise told(failed[0]) from failed[0]
    raise NotFound(f"model: {model_id}")


async def _ask(upstreams: Sequence[Upstream]) -> tuple[list[Model], list[UpstreamError]]:
    """Return the models of all upstreams, each name once, newest first, and the errors of those that have none."""
    answers = await asyncio.gather(*map(_models_of, upstreams))
    failed = [answer for answer in answers if isinstance(answer, UpstreamError)]
    found: dict[str, Model] = {}
    for answer in answers:
        if not isinstance(answer, UpstreamError):
            for model in answer:
                found.setdefault(model.id, model)
    return sorted(found.values(), key=lambda model: (-model.created_us, model.id)), failed


async def _models_of(upstream: Upstream) -> Sequence[Model] | UpstreamError:
    """Return what an upstream offers: its models by their own names, and by those that aliases give them."""
    try:
        listed = await upstream.models()
    except UpstreamError as error:
        return error
    known = {model.id: model for model in listed}
    aliased = [
        replace(known.get(target, Model(target, target, 0)), id=name) for name, target in upstream.aliases.items()
    ]
    return [*listed, *aliased]
