"""A body becomes a Call, or the contract's refusal with the contract's text (`message-batches-api.md`, section 4.2).

Lenient where servers of the Messages API differ: unknown members and unknown kinds of content are read and counted, not
refused. Nothing is fetched: a URL source is refused as one that cannot be downloaded.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from lowtide.domain.errors import InvalidRequest
from lowtide.simulate.prompt import Prompt, Renderer, is_base64

_ROLES = ("user", "assistant", "system")
_IMAGE_TYPES = ("image/jpeg", "image/png", "image/gif", "image/webp")

Object = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Call:
    """One call of `/v1/messages`, checked and rendered."""

    model: str
    max_tokens: int
    stream: bool
    prompt: Prompt
    instruction: str
    """The texts of the system prompt and of the last turn: what decides the form of the reply."""
    answers_tool: bool
    """The last turn brings a tool's result."""
    tools: tuple[Object, ...]
    """The tools that a reply can call: those with an input schema."""
    tool_choice: Object
    schema: Object | None
    """The JSON schema that the reply's text must fit."""
    stop_sequences: tuple[str, ...]


def read_call(body: bytes, *, counting: bool = False) -> Call:
    """Return the call in `body`; `counting` is for token counting, which needs no `max_tokens`.

    Raises InvalidRequest with the first thing that is wrong.
    """
    params = _object(body)
    model = _required(params, "model", str, "string")
    max_tokens = 0 if counting else _max_tokens(params)
    messages = _required(params, "messages", list, "list")
    if not messages:
        raise InvalidRequest("messages: at least one message is required")
    tools = _optional(params, "tools", list, "list", [])
    renderer = Renderer()
    _render_tools(renderer, tools)
    texts = _render_system(renderer, params.get("system"))
    for index, message in enumerate(messages):
        last = _render_message(renderer, f"messages.{index}", message)
    renderer.breakpoint(params)
    callable_tools = tuple(tool for tool in tools if isinstance(tool.get("input_schema"), dict))
    return Call(
        model=model,
        max_tokens=max_tokens,
        stream=_optional(params, "stream", bool, "boolean", default=False),
        prompt=renderer.prompt(),
        instruction="\n".join([*texts, *last]),
        answers_tool=_answers_tool(messages[-1]),
        tools=callable_tools,
        tool_choice=_tool_choice(params, tools),
        schema=_schema(params),
        stop_sequences=tuple(_optional(params, "stop_sequences", list, "list", [])),
    )


def _object(body: bytes) -> Object:
    try:
        params = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidRequest(f"The request body is not valid JSON: {error}") from error
    if not isinstance(params, dict):
        raise InvalidRequest("Input should be a valid dictionary")
    return params


def _required(params: Object, name: str, kind: type, says: str) -> Any:
    if name not in params:
        raise InvalidRequest(f"{name}: Field required")
    return _checked(params[name], name, kind, says)


def _optional(params: Object, name: str, kind: type, says: str, default: Any) -> Any:
    value = params.get(name)
    return default if value is None else _checked(value, name, kind, says)


def _checked(value: Any, loc: str, kind: type, says: str) -> Any:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise InvalidRequest(f"{loc}: Input should be a valid {says}")
    return value


def _max_tokens(params: Object) -> int:
    value: int = _required(params, "max_tokens", int, "integer")
    if value < 0:
        raise InvalidRequest("max_tokens: must be greater than or equal to 0")
    return value


def _render_tools(renderer: Renderer, tools: list[Any]) -> None:
    for index, tool in enumerate(tools):
        _checked(tool, f"tools.{index}", dict, "dictionary")
        _checked(tool.get("name"), f"tools.{index}.name", str, "string")
        renderer.add_json(tool)
        renderer.breakpoint(tool)


def _tool_choice(params: Object, tools: list[Any]) -> Object:
    choice: Object = _optional(params, "tool_choice", dict, "dictionary", {"type": "auto"})
    name = choice.get("name")
    if choice.get("type") == "tool" and all(tool["name"] != name for tool in tools):
        raise InvalidRequest(f"Tool '{name}' not found in provided tools")
    return choice


def _schema(params: Object) -> Object | None:
    config = params.get("output_config")
    form = config.get("format") if isinstance(config, dict) else params.get("output_format")
    schema = form.get("schema") if isinstance(form, dict) else None
    return schema if isinstance(schema, dict) else None


def _render_system(renderer: Renderer, system: Any) -> list[str]:
    if system is None:
        return []
    renderer.add(b"\x00system\x00")
    return _render_content(renderer, "system", system)


def _render_message(renderer: Renderer, loc: str, message: Any) -> list[str]:
    """Render one turn and return its texts."""
    _checked(message, loc, dict, "dictionary")
    role = message.get("role")
    if role not in _ROLES:
        raise InvalidRequest(f"{loc}.role: Input should be 'user' or 'assistant'")
    if "content" not in message:
        raise InvalidRequest(f"{loc}.content: Field required")
    renderer.add(b"\x00" + role.encode() + b"\x00")
    return _render_content(renderer, f"{loc}.content", message["content"])


def _render_content(renderer: Renderer, loc: str, content: Any) -> list[str]:
    if isinstance(content, str):
        renderer.add(content.encode())
        return [content]
    blocks = _checked(content, loc, list, "list")
    return [text for index, block in enumerate(blocks) for text in _render_block(renderer, f"{loc}.{index}", block)]


def _render_block(renderer: Renderer, loc: str, block: Any) -> list[str]:
    _checked(block, loc, dict, "dictionary")
    match block.get("type"):
        case "text":
            texts = [_checked(block.get("text"), f"{loc}.text", str, "string")]
            if not texts[0]:
                raise InvalidRequest("messages: text content blocks must be non-empty")
            renderer.add(texts[0].encode())
        case "image" | "document" as kind:
            texts = _render_file(renderer, f"{loc}.{kind}.source", kind, block.get("source"))
        case "tool_result":
            texts = _render_content(renderer, f"{loc}.content", block.get("content") or [])
        case None:
            raise InvalidRequest(f"{loc}.type: Field required")
        case _:
            texts = []
            renderer.add_json(block)
    renderer.breakpoint(block)
    return texts


def _render_file(renderer: Renderer, loc: str, kind: str, source: Any) -> list[str]:
    _checked(source, loc, dict, "dictionary")
    match source.get("type"):
        case "base64":
            data = _checked(source.get("data"), f"{loc}.data", str, "string")
            media_type = _checked(source.get("media_type"), f"{loc}.media_type", str, "string")
            if kind == "image" and (media_type not in _IMAGE_TYPES or not data or not is_base64(data)):
                raise InvalidRequest("Could not process image")
            renderer.add_file(data, media_type)
            return []
        case "text":
            text = _checked(source.get("data"), f"{loc}.data", str, "string")
            renderer.add(text.encode())
            return [text]
        case "url":
            raise InvalidRequest("Unable to download the file. Please verify the URL and try again.")
        case "content":
            return _render_content(renderer, f"{loc}.content", source.get("content") or [])
        case _:
            renderer.add_json(source)
            return []


def _answers_tool(message: Object) -> bool:
    content = message["content"]
    return isinstance(content, list) and any(block.get("type") == "tool_result" for block in content)
