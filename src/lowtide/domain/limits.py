"""The limits of the contract, whose defaults are the hosted service's figures (`message-batches-api.md`, section 11)."""

from dataclasses import dataclass

from lowtide.domain.times import DAY_US

CHUNK_REQUESTS_MIN = 8
CHUNK_REQUESTS_MAX = 32
"""A chunk's bitmap of resolved requests is one integer; 32 bits keep it positive in every database."""

CUSTOM_ID_CHARS_MAX = 64
LIST_LIMIT_DEFAULT = 20
LIST_LIMIT_MAX = 1000
LOSSES_MAX = 2
"""After so many losses without progress a chunk is suspect: its requests run one at a time, alone."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one server accepts and how long it keeps it."""

    requests_max: int = 100_000
    body_bytes_max: int = 256 * 1024 * 1024
    message_bytes_max: int = 32 * 1024 * 1024
    queued_requests_max: int = 0
    """Requests in processing that a workspace may have at once; 0 for no limit."""
    calls_per_minute_max: int = 0
    """Calls that a workspace may make in a minute; 0 for no limit."""
    window_us: int = DAY_US
    retention_us: int = 29 * DAY_US
