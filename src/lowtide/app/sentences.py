"""What is said of a setting that cannot be: its name, its value, where it came from and what would be right.

The value of a setting that is unknown, or that might hold a key, is never shown.
"""

import difflib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from lowtide.app.names import Steps, dotted, names

PREFIX = "LOWTIDE_"
VALUE_CHARS_MAX = 80
FLAG, ENVIRONMENT = "flag", "environment"

_WORDS = {
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a valid boolean": "true or false",
    "a valid string": "text",
    "a valid dictionary": "a table",
    "input is not a valid path": "a path",
}


@dataclass(frozen=True, slots=True)
class Source:
    """Where values come from: FLAG, ENVIRONMENT, or the path of a file."""

    values: Mapping[str, Any]
    where: str

    def place(self, steps: Steps) -> str:
        """Say where the setting at `steps` was given."""
        if self.where == FLAG:
            flag = {"upstreams": "upstream", "engine": "gguf"}.get(str(steps[0]), str(steps[0]).replace("_", "-"))
            return f"from the flag --{flag}"
        if self.where == ENVIRONMENT:
            whole = PREFIX + str(steps[0]).upper()
            one = PREFIX + "__".join(str(step) for step in steps if isinstance(step, str)).upper()
            return f"from the environment variable {whole if whole in os.environ else one}"
        return f"from {self.where}"


def sentence(error: ErrorDetails, sources: Sequence[Source]) -> str:
    """Return the one sentence that pydantic's error deserves; the first source that has the setting gave it."""
    steps = tuple(step for step in error["loc"] if step != "[key]")
    name, place = dotted(steps), place_of(steps, sources)
    match error["type"]:
        case "extra_forbidden":
            return f"There is no setting {name} ({place}){hint(name)}"
        case "missing":
            return f"The setting {name} is missing ({place_of(steps[:-1], sources)})."
        case _:
            return f"The setting {name} is {_shown(steps, error['input'])} ({place}), but it should be {_right(error)}."


def hint(name: str) -> str:
    """Return the end of a sentence about an unknown setting: the nearest name, if one is near."""
    near = difflib.get_close_matches(re.sub(r"\[\d+\]", "", name), names(), n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else "; docs/settings.md has them all."


def place_of(steps: Steps, sources: Sequence[Source]) -> str:
    """Say where a setting was given: by the first source that has it."""
    return next((source.place(steps) for source in sources if _has(source.values, steps)), "by default")


def _has(value: Any, steps: Steps) -> bool:
    for step in steps:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return False
    return True


def _shown(steps: Steps, value: object) -> str:
    if steps[-1] == "key_env" or isinstance(value, dict | list | tuple | BaseModel):
        return "not usable as it is"
    text = json.dumps(value, default=str, ensure_ascii=False)
    if "://" in text and "@" in text:
        return "a URL with credentials"
    return text if len(text) <= VALUE_CHARS_MAX else text[:VALUE_CHARS_MAX] + "…"


def _right(error: ErrorDetails) -> str:
    reason = error.get("ctx", {}).get("error")
    if reason is not None:
        return str(reason)
    if error["type"] in {"model_type", "model_attributes_type"}:
        return "a table of settings"
    text = error["msg"].removeprefix("Input should be ").split(", unable")[0].split(", got")[0]
    return _WORDS.get(text, text.removeprefix("String should ").removeprefix("Tuple should "))
