"""How batches read for a person: counts, durations and moments, in words."""

import time
from datetime import datetime

from lowtide.client.shapes import BatchShape, Live
from lowtide.domain.outcomes import Counts

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
OUTCOMES = ("succeeded", "errored", "canceled", "expired")


def duration(seconds: float) -> str:
    """Return `45 s`, `4 min 10 s`, `3 h 5 min` or `2 d 4 h`."""
    left = max(0, round(seconds))
    parts: list[str] = []
    for size, name in _UNITS:
        if left >= size or (size == 1 and not parts):
            parts.append(f"{left // size} {name}")
            left %= size
        elif parts:
            break
    return " ".join(parts[:2])


def ago_s(moment: datetime) -> float:
    """Return the seconds since a moment, by this machine's clock."""
    return time.time() - moment.timestamp()


def local(moment: datetime) -> str:
    """Return a moment in this machine's time zone."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def status(batch: BatchShape) -> str:
    """Return the state in words."""
    return batch.processing_status.replace("_", " ")


def outcomes(counts: Counts) -> str:
    """Return `980 succeeded, 20 errored`: those outcomes that there are."""
    named = [f"{count:,} {name}" for name in OUTCOMES if (count := getattr(counts, name))]
    return ", ".join(named) or "none done"


def requests(counts: Counts) -> str:
    """Return the counts of a batch in one phrase."""
    if counts.processing == 0:
        return f"{counts.total:,}: {outcomes(counts)}"
    if counts.processing == counts.total:
        return f"{counts.total:,}, all in processing"
    return f"{counts.total:,}: {outcomes(counts)}, {counts.processing:,} to do"


def pace(live: Live) -> str:
    """Return the rate and what is left of the time, as far as they are known."""
    rate = "" if live.rate_per_s is None else f"{live.rate_per_s:,.3g} requests/s"
    eta = "" if live.eta_s is None else f"about {duration(live.eta_s)} left"
    return ", ".join(filter(None, (rate, eta)))


def expiry(batch: BatchShape) -> str:
    """Return when a batch that runs will expire, or how long one took that has ended."""
    if batch.ended_at is not None:
        return f"took {duration((batch.ended_at - batch.created_at).total_seconds())}"
    left = -ago_s(batch.expires_at)
    return f"expires in {duration(left)}" if left > 0 else "past its expiry"


def ending(batch: BatchShape) -> str:
    """Return the sentence that sums up a batch that has ended."""
    took = "" if batch.ended_at is None else f" after {duration((batch.ended_at - batch.created_at).total_seconds())}"
    return f"{batch.id} ended{took}: {outcomes(batch.request_counts)}."
