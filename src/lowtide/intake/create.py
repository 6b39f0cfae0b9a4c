"""Creating a batch: from a body that arrives to rows that stand.

The order is the promise (accepted-is-durable): the body is read and judged; a row says that an object is coming; the
object is put and synced; one transaction stores batch and chunks and takes the row away. Only then does `create`
return. Whatever fails on the way leaves no file in the spool, and at most an object that its upload's row names, which
upkeep removes. A credential reaches nothing but its digest in `Creation`. Creating once:
`docs/semantics.md`, "Create".
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from lowtide import faults
from lowtide.domain.errors import (
    ContractError,
    ErrorType,
    Overloaded,
    StorageError,
    StoreFull,
    StoreUnavailable,
    TooLarge,
)
from lowtide.domain.ids import BATCH, new_id, new_token
from lowtide.domain.limits import Limits
from lowtide.intake.decoding import decoder_for
from lowtide.intake.splitter import SMALL_BYTES, Splitter
from lowtide.intake.spool import Pace, Room, Spool, Spooled
from lowtide.ports.metadata import Created, Creation, MetadataStore, NewBatch, NewChunk
from lowtide.ports.objects import ObjectStore

SPOOLED = faults.point("intake.spool", "the body is received into the spool")
SPLIT = faults.point("intake.split", "the body is split and its requests object written to the spool")
UPLOAD_ROW = faults.point("intake.upload_row", "the row that names the coming requests object is written")
OBJECT = faults.point("intake.object", "the requests object is put into the object store")
BATCH_ROWS = faults.point("intake.batch_rows", "batch and chunks are stored and the upload's row removed")

_BODY_BYTES_PER_S_MIN = 1024
_log = structlog.get_logger()


class ClientGone(ContractError):
    """499: the client left before its batch was made, so none was made. Nobody reads this answer."""

    def __init__(self) -> None:
        super().__init__(499, ErrorType.INVALID_REQUEST, "The client closed the connection")


@dataclass(frozen=True, slots=True)
class CreateCall:
    """One call of create, as the door hands it over.

    `credential` is a digest; `headers` are those that go with each request to the upstream; `gone` tells whether the
    client has left. `queued_requests_max` is the workspace's own limit, None for the server's; `models` are the patterns
    of the models that the credential may use, none for all.
    """

    workspace: str
    credential: str
    headers: Mapping[str, str]
    body: AsyncIterator[bytes]
    content_length: int | None
    content_encoding: str | None
    idempotency_key: str | None
    retry_count: int
    gone: Callable[[], Awaitable[bool]]
    queued_requests_max: int | None = None
    models: Sequence[str] = ()


class Intake:
    """Makes batches. `concurrent` large bodies are split at a time, more wait; all spooled bodies share a bound."""

    def __init__(
        self,
        store: MetadataStore,
        objects: ObjectStore,
        limits: Limits,
        spool: Path,
        *,
        concurrent: int = 2,
        spool_bytes_max: int = 4 << 30,
        body_idle_s: float = 30.0,
    ) -> None:
        self._store = store
        self._objects = objects
        self._limits = limits
        self._spool = spool
        self._places = asyncio.Semaphore(concurrent)
        self._room = Room(spool_bytes_max)
        self._pace = Pace(body_idle_s, _BODY_BYTES_PER_S_MIN)

    async def create(self, call: CreateCall) -> Created:
        """Make a batch of a call's body, or find the one that this call repeats.

        Raises ContractError alone for what is the caller's or the disk's matter.
        """
        bytes_max = self._limits.body_bytes_max
        if call.content_length is not None and call.content_length > bytes_max:
            raise TooLarge
        decoder = decoder_for(call.content_encoding)
        path = self._spool / f"{new_token()}.body"
        try:
            async with (
                Spool(path, decoder, bytes_max, self._room, self._pace) as spool,
                Splitter(self._limits.requests_max, self._places) as splitter,
            ):
                with SPOOLED:
                    spooled = await spool.receive(call.body, _warmer(splitter, call.content_length))
                return await self._store_batch(call, splitter, path, spooled)
        except StoreFull:
            _log.exception("intake.store_full")
            raise Overloaded from None
        except StorageError:
            _log.exception("intake.store_failed")
            raise Overloaded from None

    async def _store_batch(self, call: CreateCall, splitter: Splitter, path: Path, spooled: Spooled) -> Created:
        creation = Creation(call.credential, spooled.digest, call.retry_count, call.idempotency_key)
        if call.idempotency_key is not None or call.retry_count > 0:
            earlier = await self._store.find_creation(call.workspace, creation)
            if earlier is not None:
                return Created(earlier, made=False)
        upload = new_token()
        output = self._spool / f"{upload}.requests"
        try:
            with SPLIT:
                chunks = await splitter.split(path, spooled.length, output)
            async with self._upload(call.workspace, upload) as request_key:
                with OBJECT:
                    await self._objects.put_file(request_key, output)
                return await self._commit(call, creation, upload, request_key, chunks)
        finally:
            await asyncio.shield(asyncio.to_thread(output.unlink, missing_ok=True))

    @asynccontextmanager
    async def _upload(self, workspace: str, upload: str) -> AsyncIterator[str]:
        """Announce an object, and abandon it if it does not become a batch."""
        request_key = f"requests/{upload}"
        with UPLOAD_ROW:
            await self._store.begin_upload(workspace, upload, request_key)
        try:
            yield request_key
        except BaseException:
            await self._abandon(workspace, upload)
            raise

    async def _abandon(self, workspace: str, upload: str) -> None:
        """Let upkeep take the object soon. If even this fails, the row is old one day and upkeep takes it then."""
        with suppress(StorageError):
            await asyncio.shield(self._store.abandon_upload(workspace, upload))

    async def _commit(
        self, call: CreateCall, creation: Creation, upload: str, request_key: str, chunks: Sequence[NewChunk]
    ) -> Created:
        if await call.gone():
            raise ClientGone
        own = call.queued_requests_max
        batch = NewBatch(
            id=new_id(BATCH),
            workspace=call.workspace,
            upload=upload,
            request_key=request_key,
            headers=call.headers,
            window_us=self._limits.window_us,
            queued_requests_max=self._limits.queued_requests_max if own is None else own,
            creation=creation,
            models=call.models,
        )
        with BATCH_ROWS:
            created = await self._create_surely(batch, chunks)
        if not created.made:
            await self._abandon(call.workspace, upload)
        _log.info("batch.created", batch=created.batch.id, workspace=call.workspace, made=created.made)
        return created

    async def _create_surely(self, batch: NewBatch, chunks: Sequence[NewChunk]) -> Created:
        """Store a batch, a second time where the answer was lost: told of a failure, a client would make another."""
        try:
            return await self._store.create_batch(batch, chunks)
        except StoreFull:
            raise
        except StoreUnavailable as error:
            _log.warning("intake.repeated", batch=batch.id, reason=str(error))
            return await self._store.create_batch(batch, chunks)


def _warmer(splitter: Splitter, content_length: int | None) -> Callable[[int], None]:
    """Return a watcher that starts the splitter's child when a large body is nearly there."""
    wanted = max(SMALL_BYTES, (content_length or 0) * 3 // 4)

    def watch(arrived_bytes: int) -> None:
        if arrived_bytes > wanted:
            splitter.warm()

    return watch
