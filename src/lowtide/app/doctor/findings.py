"""What a check found: one line each, with what to do about it."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is: WARN works today, FAIL does not."""

    OK = "OK"
    WARN = "WARN"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line. `do` says what to do, and is empty where nothing is to be done."""

    level: Level
    subject: str
    text: str
    do: str = ""


def ok(subject: str, text: str) -> Finding:
    """Return a finding that nothing is to be done about."""
    return Finding(Level.OK, subject, text)


def warn(subject: str, text: str, do: str) -> Finding:
    """Return one that should be looked at."""
    return Finding(Level.WARN, subject, text, do)


def fail(subject: str, text: str, do: str) -> Finding:
    """Return one that keeps a server from working."""
    return Finding(Level.FAIL, subject, text, do)


def length_text(length: float) -> str:
    """Return a number of bytes for a person."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if length < 1024:
            return f"{length:.0f} {unit}" if unit == "B" else f"{length:.1f} {unit}"
        length /= 1024
    return f"{length:.1f} TiB"
