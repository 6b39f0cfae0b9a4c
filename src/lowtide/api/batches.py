"""The six operations on batches but the download of results, which has a module of its own.

Source: `message-batches-api.md`, sections 1 to 9. Invariants: accepted-is-durable (a create answers only what intake
has stored), workspace-walls (another workspace's id answers exactly as an unknown one).
"""

from starlette.requests import Request
from starlette.responses import Response

from lowtide.api.call import Call
from lowtide.api.paging import read_cursor
from lowtide.api.wire import Deleted, batch_listing, json_response, message_batch
from lowtide.domain.errors import InvalidRequest, NotFound
from lowtide.domain.states import BatchState
from lowtide.domain.times import HOUR_US
from lowtide.intake.create import CreateCall
from lowtide.ports.metadata import Batch

POLL_AFTER_S = 10
KEPT_HEADERS = ("anthropic-version", "anthropic-beta", "anthropic-user-profile-id")
"""Headers that go with each request of a batch to its upstream; a credential is never among them."""


async def create(call: Call) -> Response:
    """`POST /v1/messages/batches`: 200 once the batch is stored."""
    headers = call.request.headers
    created = await call.services.intake.create(
        CreateCall(
            workspace=call.caller.workspace,
            credential=call.caller.credential,
            headers=kept_headers(call.request),
            body=call.request.stream(),
            content_length=_count(headers.get("content-length")),
            content_encoding=headers.get("content-encoding"),
            idempotency_key=headers.get("idempotency-key"),
            retry_count=_count(headers.get("x-stainless-retry-count")) or 0,
            gone=call.request.is_disconnected,
            queued_requests_max=call.caller.limits.queued_requests_max,
            models=call.caller.models,
        )
    )
    return _answer(call, created.batch)


async def list_all(call: Call) -> Response:
    """`GET /v1/messages/batches`: a page, newest first."""
    cursor = read_cursor(call.request.query_params)
    page = await call.services.store.list_batches(
        call.caller.workspace, cursor.limit, cursor.before_id, cursor.after_id
    )
    return json_response(batch_listing(page, call.base_url))


async def retrieve(call: Call) -> Response:
    """`GET /v1/messages/batches/{batch_id}`: with a hint when to ask again while it is in progress."""
    batch = await find(call)
    polling = {"retry-after": str(POLL_AFTER_S)} if batch.state is BatchState.IN_PROGRESS else None
    return _answer(call, batch, polling)


async def cancel(call: Call) -> Response:
    """`POST /v1/messages/batches/{batch_id}/cancel`: whatever its body; one that does not run stays as it is."""
    await find(call)
    batch = await call.services.store.cancel_batch(call.caller.workspace, call.batch_id)
    return _answer(call, _present(call, batch))


async def delete(call: Call) -> Response:
    """`DELETE /v1/messages/batches/{batch_id}`: only of a batch that has ended."""
    await find(call)
    batch = _present(call, await call.services.store.delete_batch(call.caller.workspace, call.batch_id))
    if batch.state in {BatchState.IN_PROGRESS, BatchState.CANCELING}:
        raise InvalidRequest("In progress batches cannot be deleted. Consider canceling the batch instead.")
    return json_response(Deleted(batch.id))


async def find(call: Call) -> Batch:
    """Return the batch that the path names, noting that this credential knows it; raises NotFound.

    Noted before the answer: from then on a create with the same body is a wish of its own (`docs/semantics.md`, "Create").
    """
    store, caller = call.services.store, call.caller
    batch = _present(call, await store.get_batch(caller.workspace, call.batch_id))
    if call.services.clock.wall_us() - batch.created_us <= HOUR_US:
        await store.name_batch(caller.workspace, batch.id, caller.credential)
    return batch


def kept_headers(request: Request) -> dict[str, str]:
    """Return the headers that go on to the upstream; several lines of one name become one comma list.

    Raises InvalidRequest for a value that no upstream could be sent.
    """
    found = {name: ",".join(lines) for name in KEPT_HEADERS if (lines := request.headers.getlist(name))}
    for name, value in found.items():
        if not value.isprintable() or not value.isascii():
            raise InvalidRequest(f"{name}: Input should be printable ASCII")
    return found


def _present(call: Call, batch: Batch | None) -> Batch:
    if batch is None:
        raise NotFound(f"Message Batch {call.batch_id} not found.")
    return batch


def _answer(call: Call, batch: Batch, headers: dict[str, str] | None = None) -> Response:
    return json_response(message_batch(batch, call.base_url), headers=headers)


def _count(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdecimal() and len(text) < 19 else None
