"""The models that a simulated server has, in the contract's shape, each plainly labelled as simulated."""

from collections.abc import Mapping, Sequence
from typing import Any

from lowtide.domain.errors import ContractError, ErrorType, InvalidRequest
from lowtide.simulate.settings import LISTED_MODELS, ServerSettings

_LIMIT_DEFAULT = 20
_LIMIT_MAX = 1_000


class Catalogue:
    """The models that exist: those named at the start, or any name."""

    def __init__(self, settings: ServerSettings) -> None:
        self._any_name = not settings.models
        self._names = settings.models or LISTED_MODELS
        self._context_tokens = settings.engine.context_tokens

    def check(self, name: str) -> None:
        """Raise the contract's 404 if no such model exists."""
        if not self._any_name and name not in self._names:
            raise ContractError(404, ErrorType.NOT_FOUND, f"model: {name}")

    def one(self, name: str) -> dict[str, Any]:
        self.check(name)
        return self._entry(name)

    def page(self, query: Mapping[str, str]) -> dict[str, Any]:
        """Return the page that `limit`, `after_id` and `before_id` ask for."""
        limit = _limit(query.get("limit"))
        after, before = query.get("after_id"), query.get("before_id")
        if after and before:
            raise InvalidRequest("only one of before_id and after_id may be given")
        if before:
            rest = self._names[: _place(self._names, before)]
            shown, more = rest[-limit:], len(rest) > limit
        else:
            rest = self._names[_place(self._names, after) + 1 :] if after else self._names
            shown, more = rest[:limit], len(rest) > limit
        return {
            "data": [self._entry(name) for name in shown],
            "has_more": more,
            "first_id": shown[0] if shown else None,
            "last_id": shown[-1] if shown else None,
        }

    def _entry(self, name: str) -> dict[str, Any]:
        return {
            "type": "model",
            "id": name,
            "display_name": f"Simulated {name}",
            "created_at": "2026-01-01T00:00:00Z",
            "max_input_tokens": self._context_tokens,
            "max_tokens": self._context_tokens,
            "capabilities": None,
            "lifecycle": "active",
            "deprecated_at": None,
            "retires_at": None,
            "line": None,
        }


def _limit(text: str | None) -> int:
    if text is None:
        return _LIMIT_DEFAULT
    if not text.isdecimal():
        raise InvalidRequest("limit: Input should be a valid integer, unable to parse string as an integer")
    limit = int(text)
    if limit < 1:
        raise InvalidRequest("limit: Input should be greater than or equal to 1")
    if limit > _LIMIT_MAX:
        raise InvalidRequest(f"limit: Input should be less than or equal to {_LIMIT_MAX}")
    return limit


def _place(names: Sequence[str], name: str) -> int:
    """Return where `name` stands, or past the end, so that an unknown cursor gives an empty page going forward."""
    return names.index(name) if name in names else len(names)
