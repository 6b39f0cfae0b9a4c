"""The sum of a batch's results: outcomes, tokens, and errors by kind with an example of each.

Memory depends on the number of kinds, which is bounded: an error whose text is always new counts under "other".
"""

from collections import Counter
from dataclasses import dataclass, field

import msgspec

from lowtide.cli.batches.text import OUTCOMES
from lowtide.client.errors import Unreadable

KINDS_MAX, SHOWN_MAX = 1000, 20
OTHER = ("other", "errors of further kinds")


class _Usage(msgspec.Struct):
    input_tokens: int | None = 0
    output_tokens: int | None = 0
    cache_creation_input_tokens: int | None = 0
    cache_read_input_tokens: int | None = 0


class _Message(msgspec.Struct):
    usage: _Usage | None = None


class _Cause(msgspec.Struct):
    type: str = "unknown"
    message: str = ""


class _Error(msgspec.Struct):
    error: _Cause | None = None


class _Result(msgspec.Struct):
    type: str
    message: _Message | None = None
    error: _Error | None = None


class Line(msgspec.Struct):
    """What is looked at of a result line."""

    custom_id: str
    result: _Result


class Kind(msgspec.Struct):
    """One kind of error: how often, and which request had it first."""

    type: str
    message: str
    count: int
    example: str


class Document(msgspec.Struct):
    """A summary for programs."""

    results: int
    outcomes: dict[str, int]
    usage: dict[str, int]
    errors: list[Kind]


def _phrase(kind: Kind) -> str:
    return f"{kind.type}: {kind.message} (such as {kind.example})"


_decode = msgspec.json.Decoder(Line).decode


def read_line(line: bytes) -> Line:
    """Return a result line; raises Unreadable."""
    try:
        return _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Unreadable(f"A line of the results is none ({error}): {line[:80]!r}") from None


@dataclass
class Summary:
    """Add every line, then look."""

    outcomes: Counter[str] = field(default_factory=Counter)
    usage: Counter[str] = field(default_factory=Counter)
    kinds: dict[tuple[str, str], Kind] = field(default_factory=dict)

    def add(self, line: Line) -> None:
        """Count a result."""
        self.outcomes[line.result.type] += 1
        message, error = line.result.message, line.result.error
        if message is not None and message.usage is not None:
            for name in _Usage.__struct_fields__:
                self.usage[name] += getattr(message.usage, name) or 0
        if error is not None:
            cause = error.error or _Cause()
            self._count(cause, line.custom_id)

    def document(self) -> Document:
        """Return the summary for programs, the commonest errors first."""
        errors = sorted(self.kinds.values(), key=lambda kind: -kind.count)
        outcomes = {name: self.outcomes[name] for name in OUTCOMES}
        return Document(self.outcomes.total(), outcomes, {n: self.usage[n] for n in _Usage.__struct_fields__}, errors)

    def text(self) -> str:
        """Return the summary for a person."""
        document = self.document()
        named = [f"{count:,} {name}" for name, count in document.outcomes.items() if count]
        lines = [f"{document.results:,} results: {', '.join(named) or 'none'}", self._tokens()]
        lines += [f"{kind.count:>7,} x {_phrase(kind)}" for kind in document.errors[:SHOWN_MAX]]
        if len(document.errors) > SHOWN_MAX:
            lines.append(f"        and {len(document.errors) - SHOWN_MAX:,} more kinds of errors; --json has all")
        return "\n".join(lines)

    def _tokens(self) -> str:
        usage = self.usage
        cached = usage["cache_read_input_tokens"]
        text = f"tokens: {usage['input_tokens']:,} in, {usage['output_tokens']:,} out"
        return text + (f", {cached:,} read from a cache" if cached else "")

    def _count(self, cause: _Cause, custom_id: str) -> None:
        key = (cause.type, cause.message)
        if key not in self.kinds and len(self.kinds) >= KINDS_MAX:
            key = OTHER
        kind = self.kinds.setdefault(key, Kind(*key, 0, custom_id))
        kind.count += 1
