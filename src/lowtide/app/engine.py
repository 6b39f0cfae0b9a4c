"""The embedded engine: llama.cpp on one GGUF file, as one more upstream that this server starts itself.

It lives in a process of its own (`app.engine_process`), so that what happens in it costs requests that are tried again
and nothing else. Its address is loopback and chosen by the system once: the supervisor keeps the port bound, without
listening, for as long as it lives, so that an engine that was started again is found where the first one was. Whoever
calls it needs the key that the supervisor made, since any page in a browser may call a loopback address.
"""

import asyncio
import importlib.util
import os
import secrets
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import structlog

from lowtide.app.settings import Settings, UpstreamSettings
from lowtide.app.supervisor import Role, Supervisor
from lowtide.domain.errors import SettingsError

KEY_VARIABLE: Final = "LOWTIDE_ENGINE_KEY"
"""Children inherit the engine's key in here; it is in no file and in no argument."""
NAME: Final = "engine"
_MODULE: Final = "xllamacpp"
_MAGIC: Final = b"GGUF"
_GRACE_S: Final = 5.0
_POLL_S: Final = 0.1
_LOADS_MAX: Final = 3
_CIRCUIT_WAIT_MAX_S: Final = 2.0
"""An engine on the same machine is asked often whether it is back."""

_log = structlog.get_logger()


def model_name(gguf: Path) -> str:
    """Return what clients call the model: the file's name without its ending."""
    return gguf.name.removesuffix(".gguf")


def check_engine(gguf: Path) -> Path:
    """Return the absolute path of a model file that an engine could load; raises SettingsError."""
    path = gguf.expanduser().absolute()
    try:
        with path.open("rb") as file:
            magic = file.read(len(_MAGIC))
    except OSError as error:
        raise SettingsError(f"The model file {path} cannot be read ({error.strerror}); --gguf names it.") from None
    if magic != _MAGIC:
        raise SettingsError(
            f"The file {path} is no GGUF model (it does not begin with GGUF); llama.cpp's convert_hf_to_gguf.py makes one."
        )
    if importlib.util.find_spec(_MODULE) is None:
        raise SettingsError(
            "The embedded engine is not installed; `pip install 'lowtide[gguf]'` installs it, or run a llama-server of "
            "your own and name it with --upstream."
        )
    return path


@contextmanager
def engine_in(settings: Settings) -> Iterator[Settings]:
    """Keep a port for the engine, if there is to be one; yields the settings in which it is an upstream."""
    if settings.engine.gguf is None:
        yield settings
        return
    gguf = check_engine(settings.engine.gguf)
    with socket.socket() as place:
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        place.bind(("127.0.0.1", 0))
        port = place.getsockname()[1]
        os.environ[KEY_VARIABLE] = secrets.token_urlsafe(32)
        upstream = UpstreamSettings(
            name=NAME,
            url=f"http://127.0.0.1:{port}",
            key_env=KEY_VARIABLE,
            in_flight_max=settings.engine.in_flight_max,
        )
        try:
            yield settings.model_copy(
                update={
                    "upstreams": (*settings.upstreams, upstream),
                    "engine": settings.engine.model_copy(update={"gguf": gguf}),
                    "worker": settings.worker.model_copy(
                        update={"circuit_wait_max_s": min(settings.worker.circuit_wait_max_s, _CIRCUIT_WAIT_MAX_S)}
                    ),
                }
            )
        finally:
            os.environ.pop(KEY_VARIABLE, None)


def engine_role() -> Role:
    """Return the role of the engine's process."""
    return Role(NAME, "lowtide.app.engine_process", _GRACE_S)


async def until_loaded(settings: Settings, supervisor: Supervisor) -> None:
    """Return when the engine answers, or when the supervisor is told to stop; SettingsError if it dies of the file."""
    while not supervisor.stop.is_set():
        if supervisor.deaths[NAME] >= _LOADS_MAX:
            raise SettingsError(
                f"llama.cpp cannot load {settings.engine.gguf}; what it says stands above in the log. "
                "Is the file whole, and is there memory for it?"
            )
        if await _is_healthy(engine_port(settings)):
            _log.info("engine.loaded", model=model_name(settings.engine.gguf or Path()))
            return
        await asyncio.sleep(_POLL_S)


async def _is_healthy(port: int) -> bool:
    """Tell whether the engine's health endpoint, which needs no key, answers 200."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    try:
        writer.write(b"GET /health HTTP/1.0\r\nhost: localhost\r\n\r\n")
        return (await reader.readline()).split()[1:2] == [b"200"]
    except OSError:
        return False
    finally:
        writer.close()


def engine_port(settings: Settings) -> int:
    """Return the port that was kept for the engine."""
    url = next(upstream.url for upstream in settings.upstreams if upstream.name == NAME)
    return urlsplit(url).port or 0


def engine_key(environ: Mapping[str, str]) -> str:
    """Return the key that the supervisor made."""
    return environ[KEY_VARIABLE]
