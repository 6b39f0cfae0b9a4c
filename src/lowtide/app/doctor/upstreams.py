"""What the model servers say: reachable, our credential accepted, `/v1/messages` there, the models listed, how fast.

Nothing is generated: the credential is tried on a message without contents, which every server refuses as it stands.
"""

import time
from collections.abc import AsyncIterator, Sequence
from typing import Final

from lowtide.app.compose import upstream_config
from lowtide.app.doctor.findings import Finding, fail, ok, warn
from lowtide.app.settings import Settings, UpstreamSettings
from lowtide.domain.errors import SettingsError
from lowtide.ports.upstream import Reply, Upstream, UpstreamError, UpstreamTimeout, UpstreamUnreachable
from lowtide.upstreams.messages import MessagesUpstream

WITHIN_S: Final = 10.0
SLOW_S: Final = 2.0
_SHOWN_MAX: Final = 5


async def check_upstreams(settings: Settings) -> AsyncIterator[Finding]:
    """Look at each upstream in turn."""
    if not settings.upstreams and settings.engine.gguf is None:
        yield warn("upstreams", "none is named", "Name a model server by --upstream URL, or a model by --gguf PATH.")
    for given in settings.upstreams:
        subject = f"upstream {given.title}"
        try:
            upstream = MessagesUpstream(upstream_config(given))
        except SettingsError as error:
            yield fail(subject, str(error), "Set the key where key_env or key_file says, or mend the setting.")
            continue
        try:
            async for finding in _look(subject, given, upstream):
                yield finding
        finally:
            await upstream.close()


async def _look(subject: str, given: UpstreamSettings, upstream: Upstream) -> AsyncIterator[Finding]:
    began_s = time.perf_counter()
    try:
        reply = await upstream.send(b"{}", {}, WITHIN_S)
    except UpstreamUnreachable as error:
        yield fail(subject, str(error), f"Start the server, or correct its url ({given.url}).")
        return
    except UpstreamTimeout:
        yield fail(
            subject, f"no answer within {WITHIN_S:.0f} s", "It may be loading a model; otherwise look at its log."
        )
        return
    except UpstreamError as error:
        yield fail(subject, str(error), "Look at its log.")
        return
    took_s = time.perf_counter() - began_s
    finding = _judge(subject, given, reply, took_s)
    yield finding
    if finding.level != "FAIL":
        yield await _models(subject, given, upstream)


def _judge(subject: str, given: UpstreamSettings, reply: Reply, took_s: float) -> Finding:
    """Return what the answer to a message without contents says."""
    took = f"{took_s * 1000:.0f} ms"
    match reply.status:
        case 401 | 403:
            key = "its key_env or key_file" if given.key_env or given.key_file else "a key by key_env or key_file"
            return fail(subject, f"it refuses our credential (HTTP {reply.status})", f"Set {key} and key_header.")
        case 404 | 405:
            text = f"it has no /v1/messages (HTTP {reply.status})"
            return fail(subject, text, f"Correct its url ({given.url}), or upgrade the server.")
        case status if status >= 500:
            return warn(
                subject, f"it answers with HTTP {status} ({took})", "It may be busy or starting; look at its log."
            )
        case _ if took_s > SLOW_S:
            return warn(subject, f"reachable, but slow to answer ({took})", "It may be busy; look at its load.")
        case _:
            return ok(subject, f"reachable, /v1/messages answers, credential accepted ({took})")


async def _models(subject: str, given: UpstreamSettings, upstream: Upstream) -> Finding:
    subject = f"{subject}, models"
    try:
        listed = [model.id for model in await upstream.models()]
    except UpstreamError as error:
        return warn(subject, str(error), "Batches run all the same; /v1/models leaves it out.")
    wanted = [name for name in (*given.models, *given.aliases.values()) if not any(wild in name for wild in "*?[")]
    missing = [name for name in wanted if name not in listed]
    if missing:
        return warn(subject, f"it does not list {_some(missing)}, only {_some(listed)}", "Correct models or aliases.")
    return ok(subject, _some(listed) if listed else "it lists none")


def _some(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN_MAX
    return ", ".join(names[:_SHOWN_MAX]) + (f" and {more} more" if more > 0 else "")
