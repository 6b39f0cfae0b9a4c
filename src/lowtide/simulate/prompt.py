"""What the engine reads: a call's tools, system prompt and messages as one run of bytes, in that order.

Four bytes are one token, everywhere. An image or a file stands as its digest, repeated for as many tokens as it counts,
so that equal files share a prefix. Equal calls render to equal bytes, whatever the white space of their JSON. The
positions of `cache_control` are kept: they decide how usage splits the prompt.
"""

import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

TOKEN_BYTES = 4
_IMAGE_TOKENS_MAX = 1_600
_FILE_TOKENS_MAX = 100_000
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"

_encode = msgspec.json.Encoder(order="sorted").encode


def token_count(text: bytes) -> int:
    """Return how many tokens these bytes are: a started token counts."""
    return -(-len(text) // TOKEN_BYTES)


@dataclass(frozen=True, slots=True)
class Prompt:
    """The rendered bytes, and up to which token the last breakpoints of five minutes and of one hour reach."""

    rendered: bytes
    short_tokens: int
    long_tokens: int

    @property
    def tokens(self) -> int:
        return max(1, token_count(self.rendered))


class Renderer:
    """Collects the parts of a prompt."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._bytes = 0
        self._short = 0
        self._long = 0

    def add(self, part: bytes) -> None:
        self._parts.append(part)
        self._bytes += len(part)

    def add_json(self, value: Mapping[str, Any]) -> None:
        """Add an object as sorted JSON, without its `cache_control`."""
        self.add(_encode({key: part for key, part in value.items() if key != "cache_control"}))

    def add_file(self, data: str, media_type: str) -> None:
        """Add a base64 file as its digest, as long as it counts."""
        digest = hashlib.blake2b(data.encode(), digest_size=16).digest()
        room = _file_tokens(data, media_type) * TOKEN_BYTES
        self.add((digest * (room // len(digest) + 1))[:room])

    def breakpoint(self, holder: Mapping[str, Any]) -> None:
        """Note a breakpoint here if `holder` carries `cache_control`."""
        control = holder.get("cache_control")
        if not isinstance(control, dict):
            return
        here = -(-self._bytes // TOKEN_BYTES)
        if control.get("ttl") == "1h":
            self._long = here
        else:
            self._short = here

    def prompt(self) -> Prompt:
        return Prompt(b"".join(self._parts), self._short, self._long)


def is_base64(data: str) -> bool:
    """Return whether `data` decodes."""
    try:
        binascii.a2b_base64(data, strict_mode=True)
    except ValueError:  # binascii.Error is one
        return False
    return True


def _file_tokens(data: str, media_type: str) -> int:
    """Return roughly what a file counts: a PNG by its pixels, others by their size."""
    size = len(data) * 3 // 4
    if not media_type.startswith("image/"):
        return min(max(1, size // 50), _FILE_TOKENS_MAX)
    head = base64.b64decode(data[:32]) if len(data) >= 32 else b""
    if head.startswith(_PNG_MAGIC):
        width, height = int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
        return min(max(1, width * height // 750), _IMAGE_TOKENS_MAX)
    return min(max(1, size // 400), _IMAGE_TOKENS_MAX)
