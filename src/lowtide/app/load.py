"""Reading the settings: the command line over the environment over the file over the defaults.

Whatever is wrong with them ends as one SettingsError with one sentence (`app.sentences`), never as a traceback.
"""

import json
import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import EnvSettingsSource
from pydantic_settings.exceptions import SettingsError as UnreadableVariable

from lowtide.app.sentences import ENVIRONMENT, FLAG, PREFIX, Source, hint, sentence
from lowtide.app.settings import Settings
from lowtide.domain.errors import SettingsError

CONFIG_VARIABLE = "LOWTIDE_CONFIG"
CONFIG_DEFAULT = Path("lowtide.toml")
_CLIENT = {"LOWTIDE_URL", "LOWTIDE_API_KEY"}
_FAULTS = {"LOWTIDE_FAULTS", "LOWTIDE_FAULT_HANG_S", "LOWTIDE_FAULTS_TAKEN"}
OTHER_VARIABLES = frozenset({CONFIG_VARIABLE} | _CLIENT | _FAULTS)
"""Variables with our prefix that are no settings; the client commands have their own two."""

_LISTS = {
    "LOWTIDE_UPSTREAMS": '[{"url": "http://127.0.0.1:8000"}]',
    "LOWTIDE_TRUSTED_PROXIES": '["10.0.0.0/8"]',
}
"""The variables that are JSON, with an example of each."""


def load(flags: Mapping[str, Any], config: Path | None = None) -> Settings:
    """Return the settings, where `flags` are those given on the command line; raises SettingsError."""
    return load_with_sources(flags, config)[0]


def load_with_sources(flags: Mapping[str, Any], config: Path | None = None) -> tuple[Settings, Sequence[Source]]:
    """Return the settings and where they come from, the source that counts most first; raises SettingsError."""
    sources = [Source(flags, FLAG), _environment(), _file(config)]
    merged: dict[str, Any] = {}
    for source in reversed(sources):
        merged = _merge(merged, source.values)
    _refuse_unknown_variables(merged)
    try:
        return Settings(**merged), sources
    except ValidationError as error:
        raise SettingsError(sentence(error.errors(include_url=False)[0], sources)) from None


def _merge(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    """Lay `high` over `low`: tables are merged name by name, everything else is replaced as a whole."""
    merged = dict(low)
    for name, value in high.items():
        under = merged.get(name)
        merged[name] = _merge(under, value) if isinstance(under, dict) and isinstance(value, dict) else value
    return merged


def _file(config: Path | None) -> Source:
    from_variable = os.environ.get(CONFIG_VARIABLE)
    path = config or Path(from_variable or CONFIG_DEFAULT)
    try:
        return Source(tomllib.loads(path.read_text(encoding="utf-8")), str(path))
    except FileNotFoundError:
        if config is None and not from_variable:
            return Source({}, str(path))
        named_by = "--config" if config is not None else CONFIG_VARIABLE
        raise SettingsError(f"There is no file {path}, which {named_by} names.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"The file {path} is not valid TOML: {error}.") from None
    except OSError as error:
        raise SettingsError(f"The file {path} cannot be read: {error.strerror}.") from None


def _environment() -> Source:
    for variable, example in _LISTS.items():
        try:
            json.loads(os.environ.get(variable) or "[]")
        except ValueError:
            text = f"The environment variable {variable} is not valid JSON; it should be a list such as '{example}'."
            raise SettingsError(text) from None
    try:
        return Source(EnvSettingsSource(Settings)(), ENVIRONMENT)
    except UnreadableVariable:
        section = next(name for name in _sections() if os.environ.get(PREFIX + name.upper()))
        variable = PREFIX + section.upper()
        text = f"The environment variable {variable} names a table of settings; set {variable}__… for one of them."
        raise SettingsError(text) from None


def _sections() -> list[str]:
    fields = Settings.model_fields
    return [
        name for name, field in fields.items() if name != "upstreams" and field.default.__class__ is field.annotation
    ]


def _refuse_unknown_variables(merged: Mapping[str, Any]) -> None:
    """Refuse a variable with our prefix that is no setting, unless an upstream's key is in it."""
    upstreams = merged.get("upstreams", ())
    keys = {table.get("key_env") for table in upstreams if isinstance(table, dict)}
    for variable in sorted(os.environ):
        if not variable.startswith(PREFIX) or variable in OTHER_VARIABLES or variable in keys:
            continue
        name = variable.removeprefix(PREFIX).lower().replace("__", ".")
        if name.split(".")[0] not in Settings.model_fields:
            raise SettingsError(f"There is no setting {name} (from the environment variable {variable}){hint(name)}")
