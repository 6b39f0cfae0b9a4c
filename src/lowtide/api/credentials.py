"""Who calls: the workspace a call belongs to, and the digest that stands for its credential.

Both `x-api-key` and `Authorization: Bearer` are accepted, since SDKs use either (`message-batches-api.md`, section
1.2). Until keys exist any value, or none, leads to the one default workspace; the server listens on loopback only.
A credential itself is never kept, logged or sent on.
"""

from dataclasses import dataclass
from hashlib import sha256

from starlette.datastructures import Headers

from lowtide.domain.errors import InvalidRequest
from lowtide.domain.ids import DEFAULT_WORKSPACE


@dataclass(frozen=True, slots=True)
class Caller:
    """The workspace of a call, and the SHA-256 digest of its credential in hex digits."""

    workspace: str
    credential: str


def identify(headers: Headers) -> Caller:
    """Return who calls; raises InvalidRequest when the call names another workspace than its credential's."""
    wanted = headers.get("anthropic-workspace-id")
    if wanted is not None and wanted != DEFAULT_WORKSPACE:
        raise InvalidRequest("anthropic-workspace-id: does not match the workspace of this API key")
    return Caller(DEFAULT_WORKSPACE, sha256(_credential(headers).encode()).hexdigest())


def _credential(headers: Headers) -> str:
    """Return the key, whichever header carries it: the same key has the same digest in both."""
    key = headers.get("x-api-key")
    if key:
        return key
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""
