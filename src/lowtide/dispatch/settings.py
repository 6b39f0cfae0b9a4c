"""The figures a worker runs by. `app` fills them from the settings; every one has a default that suits one machine."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """How one worker process works. Times are in seconds."""

    lease_s: float = 15.0
    """How long the chunks of a silent worker stay its own."""
    commit_interval_s: float = 1.0
    """A crash repeats at most what was in flight or finished since the last commit."""
    ahead_s: float = 1.0
    """How much unsent work to keep leased, in seconds at the present rate."""
    held_bytes_max: int = 256 * 1024 * 1024
    """Claiming pauses while the held chunks are larger than this."""
    request_timeout_s: float = 1800.0
    """The deadline of one try; never later than the batch's own."""
    tries_max: int = 5
    """Tries that failed by the upstream's fault before a request is errored; being busy or down uses up none."""
    backoff_s: float = 0.5
    """The wait before the second try; it doubles up to `backoff_max_s`, with jitter."""
    backoff_max_s: float = 60.0
    circuit_wait_s: float = 1.0
    """The wait before an upstream that is down or refuses us is tried again; it doubles up to `circuit_wait_max_s`."""
    circuit_wait_max_s: float = 30.0
    expire_grace_s: float = 60.0
    """After a start, batches past their time may still run for so long: a machine that was off could not try them."""
    suspect_wait_s: float = 30.0
    """How long suspect chunks wait for a quiet moment before the worker makes one."""
    idle_poll_s: float = 1.0
    """How often an idle worker looks for work when no notification comes."""
    grace_s: float = 30.0
    """How long a stopping worker lets what is in flight finish."""
