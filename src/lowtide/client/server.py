"""Which server is called, with which key, and how patiently.

A key is never shown: neither in `repr` nor in an error's text.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from lowtide.client.errors import Unusable

URL_DEFAULT = "http://127.0.0.1:8787"
VERSION_DEFAULT = "2023-06-01"
"""The `anthropic-version` that every server of the API knows."""

_TAIL = re.compile(r"(/v1(/messages(/batches)?)?)?/*$")


@dataclass(frozen=True, slots=True)
class Server:
    """A server of the API. `idle_s` is how long it may send nothing; `retries` are the tries after the first."""

    url: str
    key: str | None = field(default=None, repr=False)
    version: str = VERSION_DEFAULT
    connect_s: float = 10.0
    idle_s: float = 120.0
    retries: int = 4


def read_url(text: str) -> str:
    """Return a base URL without the `/v1` that some people add; raises Unusable."""
    try:
        parts = urlsplit(text)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable or not text.isascii() or not text.isprintable() or " " in text:
        raise Unusable(f"The URL {text!r} cannot be used; it should be one such as {URL_DEFAULT}.")
    if parts.username is not None or parts.query or parts.fragment:
        raise Unusable("The URL should have neither credentials nor a query; a key comes from LOWTIDE_API_KEY.")
    return _TAIL.sub("", text)


def read_key(text: str, source: str) -> str:
    """Return a key that can stand in a header; raises Unusable, naming the source and not the key."""
    key = text.strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise Unusable(f"{source} holds no key: it should be one line of printable characters.")
    return key


def read_key_file(path: Path) -> str:
    """Return the key in a file; raises Unusable."""
    try:
        return read_key(path.read_text(encoding="utf-8"), f"The file {path}")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise Unusable(f"The key file {path} cannot be read: {reason}.") from None
