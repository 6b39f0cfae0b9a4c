"""Who calls: from a call's headers to the workspace it belongs to and what it may do there.

Both `x-api-key` and `Authorization: Bearer` are accepted, since SDKs use either (`message-batches-api.md`, section
1.2; the texts of refusals are those of section 10). Until the first key is made every call is let in, as the default
workspace: the server then listens on loopback alone. From then on each call needs a key. A credential itself is never
kept, logged or sent on; checking one writes nothing.

Answers of the store are kept for RECHECK_S, so that a key that is made, revoked or rotated counts within seconds, and a
poll costs no look at the database. Both memories are bounded, and made-up keys cannot push real ones out.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import structlog
from starlette.datastructures import Headers

from lowtide.domain.errors import Forbidden, InvalidRequest, Unauthorized
from lowtide.domain.ids import DEFAULT_WORKSPACE
from lowtide.domain.keys import Scope, allows, digest_of, parse_key
from lowtide.ports.access import AccessStore, Key, WorkspaceLimits
from lowtide.ports.clock import Clock

RECHECK_S = 2.0
_KNOWN_MAX, _UNKNOWN_MAX = 4096, 4096
_BEARER = "bearer"
Value = TypeVar("Value")
_log = structlog.get_logger()


SERVERS_OWN = WorkspaceLimits()
"""The limits of a workspace for which none were set."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a call. `credential` is the SHA-256 digest of what it brought, in hex digits.

    Without `models` it may use all; `key_id` is None where no key is wanted.
    """

    workspace: str
    credential: str = field(repr=False)
    scopes: frozenset[Scope] = frozenset(Scope)
    models: tuple[str, ...] = ()
    key_id: str | None = None
    limits: WorkspaceLimits = SERVERS_OWN

    def require_workspace(self, wanted: str | None) -> None:
        """Raise InvalidRequest when the call names another workspace than its credential's."""
        if wanted is not None and wanted != self.workspace:
            raise InvalidRequest("anthropic-workspace-id: does not match the workspace of this API key")

    def require(self, *scopes: Scope) -> None:
        """Raise Forbidden unless the key has one of these scopes."""
        if self.scopes.isdisjoint(scopes):
            wanted = " or ".join(f"`{scope}`" for scope in scopes)
            raise Forbidden(f"This API key does not have the scope {wanted}")

    def require_model(self, model: str) -> None:
        """Raise Forbidden unless the key may use this model."""
        if not allows(self.models, model):
            raise Forbidden(f"This API key may not use the model {model}")


@dataclass(frozen=True, slots=True)
class _Brought:
    """The credential of a call, and the header that carried it."""

    text: str = field(repr=False)
    bearer: bool

    def refusal(self) -> Unauthorized:
        return Unauthorized("Invalid bearer token" if self.bearer else "invalid x-api-key")


class Credentials:
    """Judges the credentials of calls. `now_s` is a monotonic clock, for how long an answer is kept."""

    def __init__(self, store: AccessStore, clock: Clock, now_s: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._now_s = now_s
        self._known: _Recent[Key] = _Recent(_KNOWN_MAX)
        self._unknown: _Recent[bool] = _Recent(_UNKNOWN_MAX)
        self._open_until_s: float | None = 0.0

    async def identify(self, headers: Headers) -> Caller:
        """Return who calls; raises Unauthorized."""
        brought = _brought(headers)
        if await self.wanted():
            return await self._holder(brought)
        return Caller(DEFAULT_WORKSPACE, digest_of(brought.text if brought else ""))

    async def wanted(self) -> bool:
        """Tell whether calls need a key. Once they do, they do for good: keys are never removed."""
        if self._open_until_s is not None and self._now_s() >= self._open_until_s:
            found = await self._store.has_keys()
            self._open_until_s = None if found else self._now_s() + RECHECK_S
        return self._open_until_s is None

    async def _holder(self, brought: _Brought | None) -> Caller:
        if brought is None:
            raise Unauthorized("x-api-key header is required")
        secret = parse_key(brought.text)
        if secret is None:
            raise self._refused(brought, "malformed")
        digest = secret.digest
        key = await self._find(digest)
        if key is None:
            raise self._refused(brought, "unknown")
        if not key.is_valid(self._clock.wall_us()):
            raise self._refused(brought, "expired" if key.revoked_us is None else "revoked", key)
        return Caller(key.workspace.id, digest, key.scopes, key.models, key.id, key.workspace.limits)

    async def _find(self, digest: str) -> Key | None:
        now_s = self._now_s()
        if self._unknown.get(digest, now_s):
            return None
        key = self._known.get(digest, now_s)
        if key is None:
            key = await self._store.find_key(digest)
            if key is None:
                self._unknown.put(digest, value=True, until_s=now_s + RECHECK_S)
            else:
                self._known.put(digest, key, until_s=now_s + RECHECK_S)
        return key

    @staticmethod
    def _refused(brought: _Brought, reason: str, key: Key | None = None) -> Unauthorized:
        """Return the refusal; the client is told the same of every key, the log why."""
        _log.info("key.refused", reason=reason, key=None if key is None else key.id)
        return brought.refusal()


class _Recent(Generic[Value]):
    """Answers that are kept for a while: at most `length_max`, the least lately used go first."""

    def __init__(self, length_max: int) -> None:
        self._length_max = length_max
        self._kept: OrderedDict[str, tuple[Value, float]] = OrderedDict()

    def get(self, name: str, now_s: float) -> Value | None:
        value, until_s = self._kept.get(name, (None, 0.0))
        if now_s >= until_s:
            self._kept.pop(name, None)
            return None
        self._kept.move_to_end(name)
        return value

    def put(self, name: str, value: Value, *, until_s: float) -> None:
        self._kept[name] = (value, until_s)
        self._kept.move_to_end(name)
        if len(self._kept) > self._length_max:
            self._kept.popitem(last=False)


def _brought(headers: Headers) -> _Brought | None:
    """Return the key, whichever header carries it: the same key has the same digest in both."""
    key = headers.get("x-api-key")
    if key:
        return _Brought(key, bearer=False)
    scheme, _, token = headers.get("authorization", "").partition(" ")
    token = token.strip()
    return _Brought(token, bearer=True) if token and scheme.lower() == _BEARER else None
