"""When a call is worth another try, and how long to wait before it.

A server's `retry-after` counts, in seconds, in milliseconds (`retry-after-ms`) or as a date; without one the pauses
double. A server that asks for more patience than a command should have is not called again: the person decides.
"""

import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

FIRST_S, LONGEST_S = 0.5, 8.0
PATIENCE_S = 120.0

_PASSING = frozenset({408, 429})


def is_passing(status: int, headers: Mapping[str, str], wait_s: float | None) -> bool:
    """Tell whether an error may pass while a command waits: the server says so, or its status does."""
    if wait_s is not None and wait_s > PATIENCE_S:
        return False
    said = headers.get("x-should-retry")
    if said in {"true", "false"}:
        return said == "true"
    return status in _PASSING or status >= 500


def pause_s(tries: int, wait_s: float | None = None) -> float:
    """Return the seconds to wait after so many failed tries."""
    return min(FIRST_S * 2.0 ** (tries - 1), LONGEST_S) if wait_s is None else wait_s


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return what the server asks to wait, in seconds, or None when it does not."""
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    text = headers.get("retry-after")
    seconds = _number(text)
    if seconds is not None or text is None:
        return seconds
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return None


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if 0 <= value < float("inf") else None
