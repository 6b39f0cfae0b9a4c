"""API keys: their text, what of it may be kept, and what a key allows.

A key is `lt_`, 256 random bits as 43 base62 digits, `_`, and the CRC32 of all before it as 6 digits, so that a
mistyped or cut key is told from an unknown one without a look at the database. What is stored is the SHA-256 alone: the
bits are random, so that a digest is as hard to guess as the key. The text is held by `Secret`, which never shows it.
"""

import re
import secrets
from collections.abc import Iterable
from enum import StrEnum
from fnmatch import fnmatchcase
from hashlib import sha256
from hmac import compare_digest
from typing import Final
from zlib import crc32

_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_PREFIX: Final = "lt_"
_RANDOM_DIGITS, _TAIL_DIGITS = 43, 6
_SHAPE: Final = re.compile(rf"({_PREFIX}[0-9A-Za-z]{{{_RANDOM_DIGITS}}})_([0-9A-Za-z]{{{_TAIL_DIGITS}}})")

NAME_PATTERN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""What a workspace or a key may be called: it stands in tables, logs and metrics."""

MODEL_PATTERN: Final = re.compile(r"[!-~]{1,200}")
"""What a pattern of model names may look like."""


class Scope(StrEnum):
    """What a key may be used for; none of them holds another."""

    BATCHES = "batches"
    MESSAGES = "messages"
    ADMIN = "admin"


class Secret:
    """The text of a key. It is shown by `reveal` alone, to whom it was made for."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return "Secret(…)"

    def reveal(self) -> str:
        return self._text

    @property
    def digest(self) -> str:
        """What may be stored and compared: the SHA-256 in hex digits."""
        return digest_of(self._text)


def new_key() -> Secret:
    """Return a new random key."""
    body = _PREFIX + _base62(secrets.randbits(256), _RANDOM_DIGITS)
    return Secret(f"{body}_{_tail(body)}")


def parse_key(text: str) -> Secret | None:
    """Return the key that `text` is, or None when no key ever looked so: it was mistyped, cut or made elsewhere."""
    found = _SHAPE.fullmatch(text)
    if found is None or not compare_digest(found[2], _tail(found[1])):
        return None
    return Secret(text)


def digest_of(text: str) -> str:
    """Return the SHA-256 of a credential, whatever it is, in hex digits."""
    return sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def allows(patterns: Iterable[str], model: str) -> bool:
    """Tell whether patterns (`*`, `?`, `[…]`) let a model through; without a pattern every model passes."""
    patterns = tuple(patterns)
    return not patterns or any(fnmatchcase(model, pattern) for pattern in patterns)


def _tail(body: str) -> str:
    return _base62(crc32(body.encode("ascii")), _TAIL_DIGITS)


def _base62(number: int, digits: int) -> str:
    text = []
    for _ in range(digits):
        number, digit = divmod(number, len(_ALPHABET))
        text.append(_ALPHABET[digit])
    return "".join(reversed(text))
