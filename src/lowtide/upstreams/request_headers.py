"""The headers of a call to an upstream, as libcurl takes them: ours, and those that a batch's create left to pass on.

Never lets a value add a line, and never lets a client's credential or framing through.
"""

import re
from collections.abc import Mapping
from typing import Final

from lowtide.ports.upstream import UpstreamError
from lowtide.upstreams.config import UpstreamConfig

_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_VALUE: Final = re.compile(r"[\t -~]*")
_KEPT_MAX: Final = 256
_OURS: Final = frozenset(
    (
        *("authorization", "x-api-key", "proxy-authorization", "cookie"),
        *("content-type", "content-length", "content-encoding", "accept-encoding"),
        *("host", "connection", "transfer-encoding", "expect", "te", "upgrade", "trailer"),
    )
)
VERSION_DEFAULT: Final = "2023-06-01"


class RequestHeaders:
    """Makes header lists for libcurl and keeps them: calls of one batch share theirs."""

    def __init__(self, config: UpstreamConfig) -> None:
        self._own = ["content-type: application/json", "expect:", "user-agent: lowtide"]
        if config.key is not None:
            value = config.key if config.key_header == "x-api-key" else f"Bearer {config.key}"
            self._own.append(f"{config.key_header}: {value}")
        self._made: dict[tuple[tuple[str, str], ...], list[str]] = {}

    def lines(self, headers: Mapping[str, str]) -> list[str]:
        """Return the list for these headers, the same object for equal ones; raises UpstreamError."""
        key = tuple(headers.items())
        made = self._made.get(key)
        if made is None:
            if len(self._made) >= _KEPT_MAX:
                self._made.clear()
            made = self._made[key] = self._make(headers)
        return made

    def _make(self, headers: Mapping[str, str]) -> list[str]:
        lines = list(self._own)
        names = {name.lower() for name in headers}
        if "anthropic-version" not in names:
            lines.append(f"anthropic-version: {VERSION_DEFAULT}")
        for name, value in headers.items():
            if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
                raise UpstreamError(
                    "a header of this call cannot be sent: it holds a character that headers do not have"
                )
            if name.lower() not in _OURS:
                # libcurl reads "name:" as "send no such header", "name;" as "send it empty".
                lines.append(f"{name}: {value}" if value.strip() else f"{name};")
        return lines
