"""`lowtide serve`: everything checked, claimed and said before the first child starts.

Each refusal is one SettingsError with what to do about it. The order matters: the data directory is held before its
database is migrated, which says whether there are keys; the socket is bound only then (no address but loopback is
listened on without a key), and before the first process that could answer on it.
"""

import asyncio
import shlex
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import lowtide
from lowtide.app import logs
from lowtide.app.compose import opened_store, upstream_config
from lowtide.app.directory import held, prepare
from lowtide.app.engine import engine_in, engine_role, until_loaded
from lowtide.app.lifecycle import STOPPED, stop_on_signals
from lowtide.app.listen import Address, listen, resolve, url_of
from lowtide.app.settings import Settings
from lowtide.app.supervisor import Role, Supervisor
from lowtide.domain.errors import SettingsError, StorageError
from lowtide.ports.store import Store

NO_UPSTREAM = """There is no model server to send requests to. Name one that answers /v1/messages:

  vLLM        vllm serve Qwen/Qwen3-8B            lowtide serve --upstream http://127.0.0.1:8000
  llama.cpp   llama-server -m model.gguf          lowtide serve --upstream http://127.0.0.1:8080
  no model    lowtide simulate                    lowtide serve --upstream http://127.0.0.1:8788

A server that wants a key stands in lowtide.toml; the key itself stays in the environment:

  [[upstreams]]
  url = "https://api.anthropic.com"
  key_env = "ANTHROPIC_API_KEY"
"""

NO_KEY = """The setting host is "{host}", which others can reach, but this server has no key yet: whoever reached it could
use it. Make a key first, then start again:

  lowtide keys create --data {data}

From then on every call needs a key. Keys travel in clear text unless a proxy in front of Lowtide speaks TLS.
"""


async def serve(settings: Settings, *, with_workers: bool) -> int:
    """Run the server until it is told to stop; returns the status to exit with. Raises SettingsError."""
    with engine_in(settings) as settings_with_engine:
        return await _serve(settings_with_engine, with_workers=with_workers)


async def _serve(settings: Settings, *, with_workers: bool) -> int:
    check_upstreams(settings, needed=with_workers)
    logs.configure(settings.log, process="supervisor")
    data = prepare(settings.data)
    settings = settings.model_copy(update={"data": data})
    stop = asyncio.Event()
    address = resolve(settings.host, settings.port)
    async with AsyncExitStack() as stack:
        lock = stack.enter_context(held(data))
        store = await stack.enter_async_context(_migrated_store(settings))
        keyed = await store.has_keys()
        check_keys(settings, address, keyed=keyed)
        listener = stack.enter_context(listen(address))
        supervisor = Supervisor(settings, store.release_worker, stop)
        stop_on_signals(stop, again=supervisor.kill)
        count = settings.workers if with_workers else 0
        print(banner(settings, url_of(listener), count, keyed=keyed), flush=True)  # noqa: T201 a command's own words
        api = Role(
            "api",
            "lowtide.app.api_process",
            settings.http.grace_s,
            listener.fileno(),
            (listener.fileno(), lock),
        )
        worker = Role("worker", "lowtide.app.worker_process", settings.worker.grace_s)
        if settings.engine.gguf is None:
            await supervisor.run([api], [worker] * count)
        else:
            await supervisor.run(
                [api, engine_role()], [worker] * count, ready=lambda: until_loaded(settings, supervisor)
            )
    return STOPPED


@asynccontextmanager
async def _migrated_store(settings: Settings) -> AsyncIterator[Store]:
    async with AsyncExitStack() as stack:
        try:
            store = await stack.enter_async_context(opened_store(settings))
        except StorageError as error:
            text = f"The database in {settings.data} cannot be used: {error}."
            raise SettingsError(text) from None
        yield store


def check_upstreams(settings: Settings, *, needed: bool) -> None:
    """Raise SettingsError if there is no upstream where one is needed, or if a key cannot be read."""
    if needed and not settings.upstreams:
        raise SettingsError(NO_UPSTREAM)
    for upstream in settings.upstreams:
        upstream_config(upstream)


def check_keys(settings: Settings, address: Address, *, keyed: bool) -> None:
    """Raise SettingsError if others could reach a server that wants no key of them."""
    if not keyed and not address.is_loopback:
        raise SettingsError(NO_KEY.format(host=settings.host, data=shlex.quote(str(settings.data))))


def banner(settings: Settings, url: str, workers: int, *, keyed: bool) -> str:
    """Return what a person should know who has just started the server."""
    key = "lt_…" if keyed else "any"
    return f"""Lowtide {lowtide.__version__} answers on {url}

  data       {settings.data}
  upstreams  {upstream_lines(settings)}
  workers    {workers or "none here: start them with `lowtide worker`"}
  keys       {"wanted of every call" if keyed else "none: whoever is on this machine may call"}

  client = anthropic.Anthropic(base_url="{url}", api_key="{key}")
  client.messages.batches.create(requests=[...])

Ctrl-C stops it: what is in flight is finished and stored first.
"""


def worker_banner(settings: Settings, name: str) -> str:
    """Return what a person should know who has just started a worker."""
    return f"""Lowtide {lowtide.__version__}, {name}

  data       {settings.data}
  upstreams  {upstream_lines(settings)}
"""


def upstream_lines(settings: Settings) -> str:
    """Return the upstreams, one a line, as they stand in a banner."""
    lines = [f"{given.title}  {given.url}  (models {', '.join(given.models)})" for given in settings.upstreams]
    return "\n             ".join(lines) or "none"
