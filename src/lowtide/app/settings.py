"""Every setting of Lowtide: its name with its unit, its default, its bounds and what it does.

This module owns the names; `app.load` reads them from the command line, the environment and the file, and
`app.reference` makes `docs/settings.md` from them. A setting never holds a secret: an upstream's key is named by
`key_env` or `key_file` and read when the upstream is built.
"""

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from lowtide.dispatch.settings import WorkerSettings
from lowtide.domain.limits import Limits
from lowtide.domain.times import SECOND_US
from lowtide.upkeep.loops import UpkeepIntervals

MIB = 1024 * 1024
_LIMITS, _WORKER, _UPKEEP = Limits(), WorkerSettings(), UpkeepIntervals()
"""The defaults stand where they are used."""

_URL_TAIL = re.compile(r"(/v1(/messages)?)?/*$")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Unfit(ValueError):
    """A value that a setting cannot have. The text completes "it should be …"; the value itself is shown elsewhere."""


def _http_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise Unfit("a URL such as http://127.0.0.1:8000")
    if parts.username is not None or parts.query or parts.fragment:
        raise Unfit("a URL without credentials and query (name a key by key_env or key_file)")
    return text


def _upstream_url(text: str) -> str:
    return _URL_TAIL.sub("", _http_url(text))


def _public_url(text: str) -> str:
    return _http_url(text).rstrip("/") if text else text


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text, strict=False))
    except ValueError as error:
        raise Unfit("an address or network such as 10.0.0.0/8") from error


def _variable(text: str) -> str:
    if not _VARIABLE.fullmatch(text):
        raise Unfit("the name of an environment variable (not the key itself)")
    return text


class Section(BaseModel):
    """A table of settings; a name it does not know is an error, not a silence."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class LimitSettings(Section):
    """What one server accepts and how long it keeps it; the defaults are the hosted service's figures."""

    requests_max: int = Field(default=_LIMITS.requests_max, ge=1, description="Requests in one batch.")
    body_bytes_max: int = Field(
        default=_LIMITS.body_bytes_max, ge=1024, description="Bytes of a create's body, as sent and as decoded."
    )
    message_bytes_max: int = Field(
        default=_LIMITS.message_bytes_max, ge=1024, description="Bytes of a call to `/v1/messages` or `count_tokens`."
    )
    queued_requests_max: int = Field(
        default=_LIMITS.queued_requests_max,
        ge=0,
        description="Requests in processing that a workspace may have at once; 0 for no limit.",
    )
    calls_per_minute_max: int = Field(
        default=_LIMITS.calls_per_minute_max,
        ge=0,
        description="Calls that a workspace may make in a minute; 0 for no limit.",
    )
    window_s: int = Field(
        default=_LIMITS.window_us // SECOND_US, ge=1, description="Seconds after its creation at which a batch expires."
    )
    retention_s: int = Field(
        default=_LIMITS.retention_us // SECOND_US,
        ge=1,
        description="Seconds after a batch's creation that its results are kept.",
    )


class IntakeSettings(Section):
    """How creates are taken in."""

    concurrent: int = Field(default=2, ge=1, description="Large bodies that are split at once; further ones wait.")
    spool_bytes_max: int = Field(default=4096 * MIB, ge=MIB, description="Bytes of all bodies spooled at once.")
    body_idle_s: float = Field(default=30.0, gt=0, description="Seconds without a byte after which a body is given up.")


class HttpSettings(Section):
    """The HTTP server."""

    keep_alive_s: int = Field(default=75, ge=1, description="Seconds that an idle connection is kept open.")
    grace_s: int = Field(default=10, ge=0, description="Seconds that calls have to finish when the API process stops.")


class WorkerSection(Section):
    """How a worker process works."""

    # The fields of WorkerSettings, under the same names: `app.compose` hands them over as they are.

    lease_s: float = Field(
        default=_WORKER.lease_s, ge=0.5, description="Seconds for which the chunks of a silent worker stay its own."
    )
    commit_interval_s: float = Field(
        default=_WORKER.commit_interval_s,
        gt=0,
        description="Seconds between two commits of results; a crash repeats what was not committed.",
    )
    ahead_s: float = Field(
        default=_WORKER.ahead_s, gt=0, description="Seconds' worth of unsent requests to hold, at the present rate."
    )
    held_bytes_max: int = Field(
        default=_WORKER.held_bytes_max, ge=MIB, description="Bytes of held requests above which no more are taken."
    )
    request_timeout_s: float = Field(
        default=_WORKER.request_timeout_s, gt=0, description="Seconds that an upstream has for one whole reply."
    )
    tries_max: int = Field(
        default=_WORKER.tries_max,
        ge=1,
        le=255,
        description="Tries that failed by the upstream's fault before a request is errored.",
    )
    backoff_s: float = Field(
        default=_WORKER.backoff_s, gt=0, description="Seconds before the second try; they double with each."
    )
    backoff_max_s: float = Field(default=_WORKER.backoff_max_s, gt=0, description="Seconds between tries at the most.")
    circuit_wait_s: float = Field(
        default=_WORKER.circuit_wait_s,
        gt=0,
        description="Seconds before an upstream that is down or refuses our key is tried again; they double.",
    )
    circuit_wait_max_s: float = Field(
        default=_WORKER.circuit_wait_max_s, gt=0, description="Seconds between such attempts at the most."
    )
    suspect_wait_s: float = Field(
        default=_WORKER.suspect_wait_s,
        ge=0,
        description="Seconds that requests under suspicion of killing their worker wait for a quiet moment.",
    )
    idle_poll_s: float = Field(
        default=_WORKER.idle_poll_s, gt=0, description="Seconds after which an idle worker looks for work unasked."
    )
    grace_s: float = Field(
        default=_WORKER.grace_s, ge=0, description="Seconds that requests in flight have when a worker is told to stop."
    )


class UpkeepSettings(Section):
    """How often the background loops look."""

    # The fields of UpkeepIntervals, likewise.

    reap_s: float = Field(
        default=_UPKEEP.reap_s, gt=0, description="Seconds between two looks for workers whose lease ran out."
    )
    close_s: float = Field(
        default=_UPKEEP.close_s, gt=0, description="Seconds between two closings of what canceled batches left open."
    )
    expire_s: float = Field(
        default=_UPKEEP.expire_s, gt=0, description="Seconds between two looks for batches past their window."
    )
    end_check_s: float = Field(
        default=_UPKEEP.end_check_s, gt=0, description="Seconds between two checks that no end was missed."
    )
    retire_s: float = Field(
        default=_UPKEEP.retire_s, gt=0, description="Seconds between two looks for batches past their retention."
    )
    purge_s: float = Field(
        default=_UPKEEP.purge_s, gt=0, description="Seconds between two removals of what was deleted or retired."
    )
    sweep_s: float = Field(
        default=_UPKEEP.sweep_s, gt=0, description="Seconds between two looks for result files that no row knows."
    )
    expire_grace_s: float = Field(
        default=_UPKEEP.expire_grace_s,
        ge=0,
        description="Seconds after a start in which nothing expires: a machine that was off could not try.",
    )
    merge_s: float = Field(
        default=_UPKEEP.merge_s,
        gt=0,
        description="Seconds between two looks for ended batches whose results lie in many small pieces.",
    )
    merge_blocks_min: int = Field(
        default=_UPKEEP.merge_blocks_min,
        ge=2,
        description="Pieces from which on the results of an ended batch are merged into few large files.",
    )


class LogSettings(Section):
    """What is logged: ids and figures, never the contents of requests, replies, keys or queries."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least level that is logged."
    )
    format: Literal["auto", "json", "text"] = Field(
        default="auto", description="JSON lines or readable text; `auto` is text on a terminal and JSON elsewhere."
    )


class EngineSection(Section):
    """The embedded engine: llama.cpp, which `pip install 'lowtide[gguf]'` installs, on one model file."""

    gguf: Path | None = Field(default=None, description="The model file to serve, as `--gguf`; none starts no engine.")
    in_flight_max: int = Field(default=8, ge=1, le=256, description="Requests that run on it at once: its slots.")
    context_tokens_max: int = Field(
        default=8192, ge=16, description="Tokens of prompt and reply that one request may have; memory goes with it."
    )
    gpu_layers_max: int = Field(
        default=-1, ge=-1, description="Layers of the model that go to a GPU; -1 lets llama.cpp choose."
    )
    threads_max: int = Field(default=0, ge=0, description="Threads that it computes on; 0 lets llama.cpp choose.")


class UpstreamSettings(Section):
    """A model server that answers `/v1/messages`; one table for each."""

    name: str = Field(
        default="",
        pattern=r"^[A-Za-z0-9._:\[\]-]{0,64}$",
        description="What logs and progress call it; by default the host and port of its `url`.",
    )
    url: Annotated[str, AfterValidator(_upstream_url)] = Field(
        description="Its base URL, without `/v1`, such as `http://127.0.0.1:8000`."
    )
    key_env: Annotated[str, AfterValidator(_variable)] | None = Field(
        default=None, description="The environment variable that holds its key."
    )
    key_file: Path | None = Field(default=None, description="The file that holds its key, instead of `key_env`.")
    key_header: Literal["x-api-key", "authorization"] = Field(
        default="x-api-key", description="The header that carries the key; `authorization` sends `Bearer` and the key."
    )
    models: tuple[str, ...] = Field(
        default=("*",),
        min_length=1,
        description="Patterns of the model names that go to it; `*` stands for any characters.",
    )
    aliases: dict[str, str] = Field(
        default_factory=dict,
        description='Patterns of model names and the name sent in their place, such as `"claude-*" = "qwen3-8b"`.',
    )
    in_flight_max: int = Field(default=64, ge=1, le=65_536, description="Requests that run on it at once.")
    fetches_urls: bool = Field(
        default=False, description="Whether requests with image and document URLs, which it would fetch, go to it."
    )
    reply_bytes_max: int = Field(default=64 * MIB, ge=1024, description="Bytes of one reply, as sent and as decoded.")
    connect_timeout_s: float = Field(default=10.0, gt=0, description="Seconds in which a connection must come about.")
    ca_file: Path | None = Field(default=None, description="Certificates (PEM) to trust for its `https` URL.")

    @model_validator(mode="after")
    def _one_key(self) -> "UpstreamSettings":
        if self.key_env is not None and self.key_file is not None:
            raise Unfit("a table with key_env or key_file, not both")
        return self

    @property
    def title(self) -> str:
        """The name, or what stands for it."""
        return self.name or urlsplit(self.url).netloc


def _distinct(upstreams: tuple[UpstreamSettings, ...]) -> tuple[UpstreamSettings, ...]:
    if len({upstream.title for upstream in upstreams}) < len(upstreams):
        raise Unfit("upstreams with names of their own (two have the same)")
    return upstreams


class Settings(BaseSettings):
    """All of them. A value comes from the command line, else the environment, else the file, else its default.

    Building one reads nothing from outside: `app.load` gathers the sources, and child processes get the outcome.
    """

    model_config = SettingsConfigDict(
        extra="forbid", frozen=True, env_prefix="LOWTIDE_", env_nested_delimiter="__", env_ignore_empty=True
    )

    data: Path = Field(
        default=Path("lowtide-data"),
        description="The directory of the database, the objects and the spool; made if missing.",
    )
    host: str = Field(
        default="127.0.0.1",
        min_length=1,
        description="The address that the API listens on; any but loopback needs a key first (`lowtide keys create`).",
    )
    port: int = Field(default=8787, ge=0, le=65535, description="The port that the API listens on; 0 takes a free one.")
    public_url: Annotated[str, AfterValidator(_public_url)] = Field(
        default="",
        description="The base of `results_url`, when clients reach the API under another address than they call.",
    )
    trusted_proxies: tuple[Annotated[str, AfterValidator(_network)], ...] = Field(
        default=(), description="Addresses and networks of the proxies whose forwarded headers count."
    )
    workers: int = Field(default=1, ge=1, le=64, description="Worker processes that `lowtide serve` starts.")
    limits: LimitSettings = Field(default=LimitSettings())
    intake: IntakeSettings = Field(default=IntakeSettings())
    http: HttpSettings = Field(default=HttpSettings())
    worker: WorkerSection = Field(default=WorkerSection())
    upkeep: UpkeepSettings = Field(default=UpkeepSettings())
    log: LogSettings = Field(default=LogSettings())
    engine: EngineSection = Field(default=EngineSection())
    upstreams: Annotated[tuple[UpstreamSettings, ...], AfterValidator(_distinct)] = Field(default=())

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take what is given and nothing else."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)
