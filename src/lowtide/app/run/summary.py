"""What is said at the end: outcomes, the kinds of errors with an example line each, tokens and time."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

from lowtide.app.run.sorting import Result
from lowtide.domain.outcomes import Outcome, Usage

KINDS_MAX: Final = 20
TEXT_CHARS_MAX: Final = 200
_NUMBERS = re.compile(r"\d+")
_OTHERS: Final = "other errors"


class _Error(msgspec.Struct):
    type: str
    message: str


class _Response(msgspec.Struct):
    error: _Error


class _Outcome(msgspec.Struct):
    error: _Response


class _Line(msgspec.Struct):
    result: _Outcome


_decode = msgspec.json.Decoder(_Line).decode


@dataclass
class Kind:
    """Errors that differ in numbers only: the text of the first, how many there are, and the line of the first."""

    text: str
    number: int
    count: int = 0


@dataclass
class Summary:
    """What became of an input's requests."""

    outcomes: Counter[str] = field(default_factory=Counter)
    kinds: dict[str, Kind] = field(default_factory=dict)

    def add(self, result: Result) -> None:
        """Count one result."""
        outcome = result.outcome
        self.outcomes[outcome.value] += 1
        if outcome is Outcome.ERRORED:
            error = _decode(result.line).result.error.error
            text = f"{error.type}: {error.message[:TEXT_CHARS_MAX]}"
            key = _NUMBERS.sub("0", text)
            if key not in self.kinds and len(self.kinds) >= KINDS_MAX:
                key = text = _OTHERS
            self.kinds.setdefault(key, Kind(text, result.number)).count += 1

    def text(self, usage: Usage, spent_s: float, repeated: int) -> str:
        """Return the summary for a person."""
        total = self.outcomes.total()
        lines = [f"{total:,} request{'s' if total != 1 else ''} in {duration(spent_s)}"]
        lines += [f"  {self.outcomes[name]:>9,}  {name}" for name in Outcome if self.outcomes[name]]
        if self.kinds:
            lines.append("Errors:")
            for kind in sorted(self.kinds.values(), key=lambda kind: -kind.count):
                lines.append(f"  {kind.count:>9,}  {kind.text}  (as in line {kind.number})")
        read = usage.input_tokens + usage.cache_creation_input_tokens + usage.cache_read_input_tokens
        cached = f" ({usage.cache_read_input_tokens:,} from a cache)" if usage.cache_read_input_tokens else ""
        lines.append(f"Tokens: {read:,} in{cached}, {usage.output_tokens:,} out")
        if repeated:
            lines.append(f"Upstream calls that were made again: {repeated:,}, as far as is known")
        return "\n".join(lines)


def duration(seconds: float) -> str:
    """Return a duration as people say it: 42 s, 3 min 5 s, 2 h 10 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def status_of(outcomes: Mapping[str, int]) -> int:
    """Return the exit status that these outcomes deserve: 0 if all succeeded, else 1."""
    return 0 if {name for name, count in outcomes.items() if count} <= {Outcome.SUCCEEDED.value} else 1
