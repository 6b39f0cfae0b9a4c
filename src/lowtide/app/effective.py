"""The settings as they are in effect, each with where it came from, as a file of settings that says the same.

A setting never holds a secret (`settings`); should a URL carry a password all the same, it is not shown.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from lowtide.app.names import Steps, dotted
from lowtide.app.sentences import Source, place_of
from lowtide.app.settings import Settings

_PASSWORD = re.compile(r"(?<=://)([^/@:\s]*):[^/@\s]*@")
_BARE = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Effective:
    """One setting: its value as JSON would have it, and where it came from, such as `by default`."""

    steps: Steps
    value: Any
    place: str

    @property
    def name(self) -> str:
        return dotted(self.steps)


def effective(settings: Settings, sources: Sequence[Source]) -> Iterator[Effective]:
    """Yield every setting in the order of the documentation; those of upstreams one upstream after the other."""
    for steps, value in _leaves(settings, ()):
        yield Effective(steps, _plain(value), place_of(steps, sources))


def _leaves(section: BaseModel, at: Steps) -> Iterator[tuple[Steps, Any]]:
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from _leaves(value, (*at, name))
        elif isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
            for index, each in enumerate(value):
                yield from _leaves(each, (*at, name, index))
        else:
            yield (*at, name), value


def _plain(value: Any) -> Any:
    match value:
        case Path():
            return str(value)
        case str():
            return _PASSWORD.sub(r"\1:…@", value)
        case tuple() | list():
            return [_plain(each) for each in value]
        case dict():
            return {key: _plain(each) for key, each in value.items()}
        case _:
            return value


def as_toml(found: Sequence[Effective]) -> str:
    """Return settings as a file that says the same; what is not set stands in it as a comment."""
    top = [_line(it) for it in found if len(it.steps) == 1 and it.name != "upstreams"]
    lines = [*top]
    table: Steps = ()
    for it in found:
        if len(it.steps) == 1:
            continue
        if it.steps[:-1] != table:
            table = it.steps[:-1]
            lines += ["", f"[[{table[0]}]]" if len(table) > 1 else f"[{table[0]}]"]
        lines.append(_line(it))
    return "".join(f"{line}\n" for line in lines)


def _line(it: Effective) -> str:
    name = it.steps[-1]
    if it.value is None:
        return f"# {name} is not set"
    return f"{f'{name} = {_toml(it.value)}':<40}  # {it.place}"


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        pairs = (f"{key if _BARE.fullmatch(key) else json.dumps(key)} = {_toml(each)}" for key, each in value.items())
        return f"{{ {', '.join(pairs)} }}" if value else "{}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value, ensure_ascii=False)
