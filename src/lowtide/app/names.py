"""The names of all settings, in the order in which they are documented."""

from collections.abc import Iterator

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from lowtide.app.settings import Settings, UpstreamSettings

Steps = tuple[int | str, ...]
"""Where a setting stands, as in ("upstreams", 0, "url")."""


def dotted(steps: Steps) -> str:
    """Return `upstreams[0].url` for ("upstreams", 0, "url")."""
    text = ""
    for step in steps:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def walk(section: type[BaseModel] = Settings, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield each setting's dotted name and its field; a setting of an upstream is named `upstreams.url`."""
    for name, field in section.model_fields.items():
        inner = UpstreamSettings if name == "upstreams" else field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from walk(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def names() -> list[str]:
    """Return the dotted names of all settings."""
    return [name for name, _ in walk()]
