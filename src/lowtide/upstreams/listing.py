"""Reading an upstream's list of models, in Anthropic's shape or OpenAI's."""

import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import msgspec

from lowtide.domain.times import SECOND_US
from lowtide.ports.upstream import Model, UpstreamError


@dataclass(frozen=True, slots=True)
class ModelPage:
    """Some models, and the cursor of the next page if there is one."""

    models: list[Model]
    after: str | None


def read_models(body: bytes) -> ModelPage:
    """Return the models of a reply; raises UpstreamError when it is no list of models.

    Anthropic's items have `display_name` and `created_at` (RFC 3339), OpenAI's `created` (seconds).
    """
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        value = None
    if not isinstance(value, dict) or not isinstance(value.get("data"), list):
        raise UpstreamError("the upstream's list of models is not one")
    models = [model for item in value["data"] if (model := _model(item)) is not None]
    last = value.get("last_id")
    more = value.get("has_more") is True and bool(models)
    return ModelPage(models, quote(last, safe="") if more and isinstance(last, str) else None)


def _model(item: Any) -> Model | None:
    if not isinstance(item, dict) or not isinstance(item.get("id"), str) or not item["id"]:
        return None
    name = item.get("display_name")
    return Model(item["id"], name if isinstance(name, str) and name else item["id"], _created_us(item))


def _created_us(item: dict[str, Any]) -> int:
    created = item.get("created_at", item.get("created"))
    with contextlib.suppress(ValueError, OverflowError):
        if isinstance(created, str):
            moment = datetime.fromisoformat(created)
            return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * SECOND_US)
        if isinstance(created, (int, float)) and 0 <= created < 1e11:
            return round(created * SECOND_US)
    return 0
