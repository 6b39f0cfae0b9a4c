"""When a failed try is tried again: exponential backoff with jitter, or what the upstream asked for."""

import random

from lowtide.dispatch.settings import WorkerSettings


def backoff_s(settings: WorkerSettings, failures: int, retry_after_s: float | None = None) -> float:
    """Return the wait before the next try, after so many failures (1 or more).

    Half of it is jitter, so that requests which failed together do not come back together. `retry-after` is a minimum.
    """
    wait_s = min(settings.backoff_max_s, settings.backoff_s * 2.0 ** min(failures - 1, 16))
    jittered_s = wait_s * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing
    if retry_after_s is None:
        return jittered_s
    return retry_after_s + jittered_s / 4
