"""Values made to fit a form: a JSON schema, or an example object in a prompt. Deterministic for a given random source.

Texts inside say that they are simulated wherever the form leaves them free. Depth and length are bounded, so that a
schema that refers to itself ends.
"""

import json
import math
import random
from collections.abc import Mapping
from typing import Any

_DEPTH_MAX = 6
_FREE_TEXT = "[simulated] no model has read this"
_FORMATS = {
    "date": "2026-01-15",
    "date-time": "2026-01-15T09:30:00Z",
    "time": "09:30:00Z",
    "email": "simulated@example.com",
    "uri": "https://example.com/simulated",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


def fit_schema(schema: Any, source: random.Random) -> Any:
    """Return a value that fits `schema`, as far as types, enums, bounds, formats and required members go."""
    return _fit(schema, schema, source, "value", 0)


def fit_example(example: Any, source: random.Random) -> Any:
    """Return a value of the form of `example`.

    Alternatives in a string stand between bars (`"allow|remove"`): one of them is chosen. A number gives the range,
    from zero to itself.
    """
    match example:
        case dict():
            fitted: Any = {key: fit_example(value, source) for key, value in example.items()}
        case list():
            fitted = [fit_example(value, source) for value in example[:3]]
        case str():
            fitted = source.choice(example.split("|")).strip() if "|" in example else _FREE_TEXT
        case bool():
            fitted = source.random() < 0.5
        case int():
            fitted = source.randint(min(0, example), max(1, example))
        case float():
            fitted = round(source.random() * example, 2)
        case _:
            fitted = None
    return fitted


def example_in(text: str) -> dict[str, Any] | None:
    """Return the first JSON object that stands in `text`, or None; only where the text speaks of JSON."""
    if "JSON" not in text:
        return None
    decoder = json.JSONDecoder()
    start = text.find("{", text.find("JSON"))
    for _ in range(4):
        if start < 0:
            break
        try:
            found, _ = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            start = text.find("{", start + 1)
        else:
            return found if isinstance(found, dict) else None
    return None


def _fit(schema: Any, root: Any, source: random.Random, name: str, depth: int) -> Any:
    schema = _settled(schema, root)
    if depth > _DEPTH_MAX:
        return None
    if "const" in schema:
        return schema["const"]
    if choices := schema.get("enum"):
        return source.choice(choices)
    match _kind(schema):
        case "object":
            return _fit_object(schema, root, source, depth)
        case "array":
            return _fit_array(schema, root, source, name, depth)
        case scalar:
            return _fit_scalar(scalar, schema, source, name)


def _settled(schema: Any, root: Any) -> Mapping[str, Any]:
    """Return the schema that references and alternatives lead to: the first alternative stands for all."""
    for _ in range(_DEPTH_MAX):
        if not isinstance(schema, Mapping):
            break
        if isinstance(ref := schema.get("$ref"), str):
            schema = _resolve(ref, root)
        elif options := schema.get("anyOf") or schema.get("oneOf"):
            schema = options[0]
        else:
            return schema
    return {"type": "null"}


def _kind(schema: Mapping[str, Any]) -> str:
    kind = schema.get("type") or ("object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = next((one for one in kind if one != "null"), "null")
    return str(kind)


def _fit_scalar(kind: str, schema: Mapping[str, Any], source: random.Random, name: str) -> Any:
    match kind:
        case "integer":
            fitted: Any = _fit_integer(schema, source)
        case "number":
            fitted = round(source.uniform(*_bounds(schema)), 2)
        case "boolean":
            fitted = source.random() < 0.5
        case "null":
            fitted = None
        case _:
            fitted = _fit_string(schema, name)
    return fitted


def _fit_object(schema: Mapping[str, Any], root: Any, source: random.Random, depth: int) -> dict[str, Any]:
    properties = schema.get("properties") or {}
    required = schema.get("required") or []
    wanted = [name for name in properties if name in required or source.random() < 0.5]
    return {name: _fit(properties[name], root, source, name, depth + 1) for name in wanted}


def _fit_array(schema: Mapping[str, Any], root: Any, source: random.Random, name: str, depth: int) -> list[Any]:
    least = int(schema.get("minItems", 1))
    most = min(int(schema.get("maxItems", least + 2)), least + 2)
    items = schema.get("items")
    return [_fit(items, root, source, name, depth + 1) for _ in range(source.randint(least, max(least, most)))]


def _fit_integer(schema: Mapping[str, Any], source: random.Random) -> int:
    low, high = _bounds(schema)
    step = int(schema.get("multipleOf", 1)) or 1
    first, last = math.ceil(low / step), math.floor(high / step)
    return source.randint(first, max(first, last)) * step


def _bounds(schema: Mapping[str, Any]) -> tuple[float, float]:
    low = schema.get("minimum", schema.get("exclusiveMinimum", 0) + ("exclusiveMinimum" in schema))
    high = schema.get("maximum", schema.get("exclusiveMaximum", low + 100) - ("exclusiveMaximum" in schema))
    return low, high


def _fit_string(schema: Mapping[str, Any], name: str) -> str:
    text = _FORMATS.get(schema.get("format", ""), f"simulated {name}")
    text = text.ljust(int(schema.get("minLength", 0)), ".")
    return text[: int(schema.get("maxLength", len(text)))]


def _resolve(ref: str, root: Any) -> Any:
    """Return what a local reference such as `#/$defs/Line` names, or None."""
    found = root
    for step in ref.removeprefix("#/").split("/"):
        found = found.get(step) if isinstance(found, Mapping) else None
    return found
