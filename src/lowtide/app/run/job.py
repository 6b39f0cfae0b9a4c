"""What a person asks `lowtide run` for, as values: where from, where to, and what the lines may leave out."""

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import msgspec

from lowtide.domain.splice import add_member, top_level

STDIN = "-"


class Order(StrEnum):
    """The order of the results: that of the input, written at the end, or as they come, written meanwhile."""

    INPUT = "input"
    FINISH = "finish"


@dataclass(frozen=True, slots=True)
class Fill:
    """Members of `params` for the lines that leave them out; what a line says is never overwritten."""

    model: str | None = None
    system: str | None = None
    max_tokens: int | None = None

    def apply(self, params: bytes) -> bytes:
        """Return `params` with what it leaves out, the client's bytes untouched; raises NotAnObject."""
        wanted = {"max_tokens": self.max_tokens, "system": self.system, "model": self.model}
        missing = {name: value for name, value in wanted.items() if value is not None}
        if missing:
            present = top_level(params)
            for name, value in missing.items():
                if name not in present:
                    params = add_member(params, name, msgspec.json.encode(value))
        return params

    def says(self) -> dict[str, str]:
        """Return what decides about the requests, to be compared with that of an earlier run; a prompt by its digest."""
        system = None if self.system is None else f"text {hashlib.sha256(self.system.encode()).hexdigest()[:12]}"
        given = {"--model": self.model, "--system": system, "--max-tokens": self.max_tokens}
        return {flag: str(value) for flag, value in given.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Job:
    """One run. `state` is the directory that remembers it; `order` is None where the earlier run's counts.

    A run that `expires` makes all its batches at once, so that their time begins together.
    """

    input: str
    output: Path
    state: Path
    fill: Fill
    order: Order | None = None
    retry_failed: bool = False
    expires: bool = False
