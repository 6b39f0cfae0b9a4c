"""What an operator says about one upstream, checked once, so that no call meets a setting that cannot be.

Also decides which models go there and under which name. The credential is in here and in no text made from this:
neither `repr` nor an error shows it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

from lowtide.domain.errors import SettingsError

_KEY: Final = re.compile(r"[!-~]+")


@dataclass(frozen=True, slots=True)
class UpstreamConfig:
    """One upstream.

    `url` may carry a path prefix; `/v1/messages` is appended. `models` are the patterns (`*`, `?`, `[…]`) of the names
    that may go there, `aliases` pairs of pattern and the name sent instead; the first that matches counts. An aliased
    model needs no pattern of its own.
    """

    name: str
    url: str
    key: str | None = field(default=None, repr=False)
    key_header: Literal["x-api-key", "authorization"] = "x-api-key"
    models: tuple[str, ...] = ("*",)
    aliases: tuple[tuple[str, str], ...] = ()
    in_flight_max: int = 64
    fetches_urls: bool = False
    reply_bytes_max: int = 64 * 1024 * 1024
    connect_timeout_s: float = 10.0
    ca_file: str | None = None
    proxy: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        _check_url(self.name, self.url)
        if self.key is not None and not _KEY.fullmatch(self.key):
            raise SettingsError(f"upstream {self.name}: key holds a space, a line break or a non-ASCII character")
        for name in ("in_flight_max", "reply_bytes_max", "connect_timeout_s"):
            if getattr(self, name) <= 0:
                raise SettingsError(f"upstream {self.name}: {name} must be greater than 0")
        for _, target in self.aliases:
            if not target or any(wild in target for wild in "*?["):
                raise SettingsError(f"upstream {self.name}: the alias target {target!r} must be the name of one model")
        if self.ca_file is not None and not Path(self.ca_file).is_file():
            raise SettingsError(f"upstream {self.name}: ca_file {self.ca_file} is no file")

    @property
    def base_url(self) -> str:
        """The address that `/v1/…` is appended to; a `/v1` that the operator wrote is not doubled."""
        return self.url.rstrip("/").removesuffix("/v1")

    @property
    def named_aliases(self) -> dict[str, str]:
        """The aliases that stand for one name each, which a list of models can show."""
        patterns = dict(reversed(self.aliases))
        return {name: target for name, target in patterns.items() if not any(wild in name for wild in "*?[")}

    def alias_of(self, model: str) -> str | None:
        """Return the name that this upstream knows `model` by, if an alias applies."""
        return next((target for pattern, target in self.aliases if fnmatchcase(model, pattern)), None)

    def serves(self, model: str) -> bool:
        return any(fnmatchcase(model, pattern) for pattern in self.models) or self.alias_of(model) is not None


def read_key(environ: Mapping[str, str], name: str, *, key_env: str | None, key_file: str | None) -> str | None:
    """Return the credential of the upstream `name` from a variable or a file; None when neither is given."""
    if key_env is not None:
        key = environ.get(key_env, "").strip()
        source = f"the environment variable {key_env}"
    elif key_file is not None:
        try:
            key = Path(key_file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            key = ""
        source = f"the file {key_file}"
    else:
        return None
    if not key:
        raise SettingsError(f"upstream {name}: {source} holds no key")
    return key


def _check_url(name: str, url: str) -> None:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not _KEY.fullmatch(url):
        raise SettingsError(f"upstream {name}: url must be an address such as http://127.0.0.1:8000")
    if parts.username is not None or parts.query or parts.fragment:
        raise SettingsError(f"upstream {name}: url must hold no user, query or fragment; the key has its own setting")
