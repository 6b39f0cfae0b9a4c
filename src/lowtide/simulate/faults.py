"""What goes wrong, and when: by rate (`--fault 529=0.01`) or by a mark in the prompt.

A mark is `[[simulate: KIND key=value …]]` anywhere in the body, for example in a message:

    [[simulate: 429 retry-after=2]]     a status: 400, 401, 403, 404, 413, 429, 500, 503, 504 or 529
    [[simulate: 503 times=2]]           only the first two tries of this body; then a reply
    [[simulate: stall seconds=5]]       silence; without seconds until the caller hangs up
    [[simulate: id=case-17]]            no fault: a name for the call in the log

Kinds beside the statuses:

    reset         the connection is reset, without a byte of an answer
    stall         no answer
    slow          the right answer, `seconds` late
    half-body     half of the right answer, then the connection closes
    empty         200 without a body
    html          200 with a page of HTML, as a proxy in between might send
    wrong-json    200 with JSON that is no Message
    broken-json   200 with a text that is no JSON
    bad-utf8      200 with a Message whose text is not UTF-8
    error-in-200  200 with an error's envelope
    line-breaks   the right answer, spread over lines, with U+2028 and U+0085 inside
    deep          200 with a Message nested 200,000 deep
    gzip-bomb     200 with 64 MB of text in 64 kB of gzip
    endless       200 with a body that never ends
    llama-cpp     the right answer with a `chatcmpl-` id, and a stop sequence reported as `end_turn`
    crash         the process ends, without a word (only with --allow-crash; else as reset)

Invariant: a mark counts its tries by the body it stands in, so one marked call never uses up another's.
"""

import random
import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import Final

from xxhash import xxh3_128_digest

from lowtide.domain.errors import InvalidRequest, SettingsError

STATUSES: Final = {
    "400": ("invalid_request_error", "simulated: this request is refused on demand"),
    "401": ("authentication_error", "invalid x-api-key"),
    "403": ("permission_error", "simulated: this key may not do that"),
    "404": ("not_found_error", "model: simulated-unknown"),
    "413": ("request_too_large", "Request exceeds the maximum size"),
    "429": ("rate_limit_error", "simulated: too many requests"),
    "500": ("api_error", "Internal server error"),
    "503": ("api_error", "simulated: no capacity"),
    "504": ("timeout_error", "simulated: timed out"),
    "529": ("overloaded_error", "Overloaded"),
}
OTHERS: Final = (
    "reset",
    "stall",
    "slow",
    "half-body",
    "empty",
    "html",
    "wrong-json",
    "broken-json",
    "bad-utf8",
    "error-in-200",
    "line-breaks",
    "deep",
    "gzip-bomb",
    "endless",
    "llama-cpp",
    "crash",
)
KINDS: Final = frozenset(STATUSES) | frozenset(OTHERS)
_KEYS: Final = frozenset({"retry-after", "seconds", "times", "id"})
_MARK = re.compile(rb"\[\[simulate:([^\]]{0,200})\]\]")


@dataclass(frozen=True, slots=True)
class Fault:
    """What befalls a call; `kind` None: nothing, though a mark may have named the call."""

    kind: str | None
    retry_after: str | None = None
    """The header's value, as given: seconds or a date."""
    seconds: float | None = None
    times: int | None = None
    """How many tries of one body fail; None: all."""
    id: str | None = None


_NOTHING: Final = Fault(None)


@dataclass(frozen=True, slots=True)
class FaultRate:
    """A fault that befalls a share of all calls."""

    fault: Fault
    rate: float


def parse_rate(text: str) -> FaultRate:
    """Return the rate written as `KIND=RATE` or `KIND=RATE,retry-after=2`; SettingsError says what is wrong."""
    words = text.replace(",", " ").split()
    kind, _, rate = words[0].partition("=") if words else ("", "", "")
    try:
        share = float(rate)
        fault = _parse([kind, *words[1:]])
    except ValueError as error:
        raise SettingsError(f"--fault {text}: {error} (write KIND=RATE, as in 529=0.01)") from error
    if not 0 <= share <= 1:
        raise SettingsError(f"--fault {text}: the rate must be between 0 and 1")
    return FaultRate(fault, share)


def _parse(words: list[str]) -> Fault:
    """Return the fault in the words of a mark; ValueError says what is wrong."""
    kinds = [word for word in words if "=" not in word]
    given = dict(word.split("=", 1) for word in words if "=" in word)
    if len(kinds) > 1 or not KINDS.issuperset(kinds) or not _KEYS.issuperset(given):
        raise ValueError(f"unknown: {' '.join(words)}")
    return Fault(
        kind=kinds[0] if kinds else None,
        retry_after=given.get("retry-after"),
        seconds=float(given["seconds"]) if "seconds" in given else None,
        times=int(given["times"]) if "times" in given else None,
        id=given.get("id"),
    )


class Faults:
    """Decides for each call what befalls it. Draws come from the seed, in the order of the calls."""

    def __init__(self, rates: tuple[FaultRate, ...], seed: int) -> None:
        self._rates = rates
        self._source = random.Random(seed)  # noqa: S311  # faults must repeat, not be secret
        self._tries: Counter[bytes] = Counter()

    def befalling(self, body: bytes) -> Fault:
        """Return what befalls this try of this body.

        Raises InvalidRequest if its mark cannot be read: a test's mistake must not pass as success.
        """
        marked = self._marked(body) if b"[[simulate:" in body else _NOTHING
        if marked.kind is not None or not self._rates:
            return marked
        return replace(self._drawn(), id=marked.id)

    def _marked(self, body: bytes) -> Fault:
        found = _MARK.search(body)
        if found is None:
            return _NOTHING
        try:
            fault = _parse(found[1].decode().split())
        except ValueError as error:
            raise InvalidRequest(f"the mark {found[0].decode(errors='replace')} cannot be read: {error}") from error
        if fault.times is None:
            return fault
        digest = xxh3_128_digest(body)
        self._tries[digest] += 1
        return fault if self._tries[digest] <= fault.times else Fault(None, id=fault.id)

    def _drawn(self) -> Fault:
        draw = self._source.random()
        for entry in self._rates:
            if draw < entry.rate:
                return entry.fault
            draw -= entry.rate
        return _NOTHING
