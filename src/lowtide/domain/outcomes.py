"""Outcomes of requests, their counts and their usage.

Invariants kept here: counts-add-up (`Counts.total` is constant over a batch's life) and billed-iff-succeeded
(`Usage` is added for succeeded requests alone).
"""

from dataclasses import dataclass
from enum import StrEnum

import msgspec


class Outcome(StrEnum):
    """How a request ended: the `type` of its result."""

    SUCCEEDED = "succeeded"
    ERRORED = "errored"
    CANCELED = "canceled"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Counts:
    """Requests of a batch by outcome; `processing` are those without one. The order is the wire's."""

    processing: int = 0
    succeeded: int = 0
    errored: int = 0
    canceled: int = 0
    expired: int = 0

    @property
    def total(self) -> int:
        return self.processing + self.succeeded + self.errored + self.canceled + self.expired


class Usage(msgspec.Struct, frozen=True):
    """Tokens of succeeded requests, as their replies reported them.

    A struct, as everything that is made once per request: a frozen dataclass takes ten times as long to make.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cache_creation_input_tokens + other.cache_creation_input_tokens,
            self.cache_read_input_tokens + other.cache_read_input_tokens,
        )
