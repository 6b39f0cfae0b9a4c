"""Wall time as the contract writes it.

Everywhere inside, a moment is an integer count of microseconds since 1970 (`…_us`); only here is it made text.
Source of the format: `message-batches-api.md`, section 2 (RFC 3339, microseconds, `+00:00`).
"""

from datetime import UTC, datetime, timedelta

SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def format_time(moment_us: int) -> str:
    """Return `2026-08-19T14:49:30.044811+00:00` for a count of microseconds since 1970."""
    return (_EPOCH + timedelta(microseconds=moment_us)).isoformat(timespec="microseconds")
