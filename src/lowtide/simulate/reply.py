"""What is answered: the same text, JSON or tool input for the same seed and call, and plainly simulated.

The length of a free text is drawn from a lognormal distribution by the digest of the prompt, so that lengths spread as
real ones do and the same call always gets the same. Only the ids are fresh for each call, so that two answers to one
call can be told apart, as a real server's can.
"""

import math
import random
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Final

import msgspec
from xxhash import xxh3_64_intdigest

from lowtide.domain.ids import MESSAGE, new_id
from lowtide.simulate.prompt import TOKEN_BYTES, token_count
from lowtide.simulate.settings import ServerSettings
from lowtide.simulate.shapes import example_in, fit_example, fit_schema
from lowtide.simulate.wire import Call, Object

LABEL: Final = "[simulated]"
_SENTENCES: Final = (
    "No model has read this prompt.",
    "The words only fill the length that a real answer might have.",
    "A queue was joined, a seat was taken, and tokens were counted one by one.",
    "What stands here is the same each time the same question comes.",
    "The tide is out, and the harbour has room for slow ships.",
    "Numbers in usage are counted, not billed.",
    "Please do not draw conclusions from these sentences.",
    "A real model would have weighed the matter and said more.",
    "Every step of this engine gave each running sequence one token.",
    "Shared beginnings were found again in the prefix cache.",
    "If this looks plausible, that is an accident of grammar.",
    "Longer answers simply repeat such lines in another order.",
)
_POOL: Final = " ".join(_SENTENCES * 24) + " "
_STARTS: Final = tuple(_POOL.index(sentence) for sentence in _SENTENCES)
_NORMAL: Final = NormalDist()
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply before it is sent: its only block (None: no content) and why it ends."""

    block: dict[str, Any] | None
    output_tokens: int
    stop_reason: str
    stop_sequence: str | None = None


def compose(call: Call, settings: ServerSettings) -> Reply:
    """Return the reply to `call`."""
    digest = xxh3_64_intdigest(call.prompt.rendered + call.model.encode(), settings.seed)
    room = min(call.max_tokens, settings.engine.context_tokens - call.prompt.tokens)
    full = "max_tokens" if room == call.max_tokens else "model_context_window_exceeded"
    if room <= 0:
        return Reply(None, 0, full)
    if tool := _tool_called(call, digest):
        return _tool_reply(tool, digest, room, full)
    text = _shaped_text(call, digest)
    if text is None:
        wanted = _length(digest, settings)
        text = _free_text(digest, min(wanted, room), ended=wanted <= room)
    else:
        wanted = token_count(text.encode())
        text = text if wanted <= room else text[: room * TOKEN_BYTES]
    if (stopped := _stopped(text, call.stop_sequences)) is not None:
        return stopped
    return Reply(_text_block(text), min(wanted, room), "end_turn" if wanted <= room else full)


def message(call: Call, reply: Reply, cached_tokens: int) -> dict[str, Any]:
    """Return the Message as it stands on the wire, with the usage that the engine found."""
    return {
        "model": call.model,
        "id": new_id(MESSAGE),
        "type": "message",
        "role": "assistant",
        "content": [] if reply.block is None else [reply.block],
        "stop_reason": reply.stop_reason,
        "stop_sequence": reply.stop_sequence,
        "stop_details": None,
        "usage": usage(call, reply.output_tokens, cached_tokens),
    }


def usage(call: Call, output_tokens: int, cached_tokens: int) -> dict[str, Any]:
    """Split the prompt as the contract does: read from the cache, written to it, and the rest.

    Only what stands before a breakpoint counts as cached, however much of the prompt the engine found.
    """
    prompt = call.prompt
    last = max(prompt.short_tokens, prompt.long_tokens)
    read = min(cached_tokens, last)
    long = max(0, prompt.long_tokens - read)
    written = last - read
    return {
        "input_tokens": prompt.tokens - last,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
        "cache_creation": {"ephemeral_5m_input_tokens": written - long, "ephemeral_1h_input_tokens": long},
        "output_tokens": output_tokens,
        "service_tier": "standard",
    }


def _source(digest: int) -> random.Random:
    return random.Random(digest)  # noqa: S311  # replies must repeat, not be secret


def _length(digest: int, settings: ServerSettings) -> int:
    share = (digest % (1 << 53) + 0.5) / (1 << 53)
    spread = math.exp(settings.output_tokens_sigma * _NORMAL.inv_cdf(share))
    return max(1, round(settings.output_tokens_median * spread))


def _free_text(digest: int, tokens: int, *, ended: bool) -> str:
    """Return `tokens` tokens of text: the label, then lines of the pool, cut to length."""
    size = tokens * TOKEN_BYTES
    start = _STARTS[digest % len(_STARTS)]
    pool = _POOL * (size // len(_POOL) + 2)
    text = f"{LABEL} {pool[start : start + size]}"[:size]
    return text[:-1] + "." if ended and size > len(LABEL) else text


def _shaped_text(call: Call, digest: int) -> str | None:
    """Return JSON where the call wants JSON: by a schema, or by an example object in its instructions."""
    if call.schema is not None:
        return _encode(fit_schema(call.schema, _source(digest))).decode()
    example = example_in(call.instruction)
    if example is None:
        return None
    return _encode({"simulated": True} | fit_example(example, _source(digest))).decode()


def _tool_called(call: Call, digest: int) -> Object | None:
    """Return the tool that this reply calls; left free, every other reply calls one, but never right after a result."""
    if not call.tools:
        return None
    match call.tool_choice.get("type"):
        case "tool":
            return next((tool for tool in call.tools if tool["name"] == call.tool_choice["name"]), None)
        case "any":
            return call.tools[digest % len(call.tools)]
        case "none":
            return None
        case _:
            chosen = digest % 2 == 0 and not call.answers_tool
            return call.tools[(digest >> 1) % len(call.tools)] if chosen else None


def _tool_reply(tool: Object, digest: int, room: int, full: str) -> Reply:
    """Return a call of `tool`; where it does not fit into the room, its input is empty, as if cut off."""
    given = fit_schema({"type": "object"} | dict(tool["input_schema"]), _source(digest))
    wanted = token_count(_encode(given)) + token_count(tool["name"].encode())
    fits = wanted <= room
    block = {
        "type": "tool_use",
        "id": new_id("toolu"),
        "name": tool["name"],
        "input": given if fits else {},
    }
    return Reply(block, min(wanted, room), "tool_use" if fits else full)


def _stopped(text: str, stop_sequences: tuple[str, ...]) -> Reply | None:
    """Return the reply cut at the first stop sequence in it, or None."""
    found = [(text.index(stop), stop) for stop in stop_sequences if stop and stop in text]
    if not found:
        return None
    at, stop = min(found)
    block = _text_block(text[:at]) if at else None
    return Reply(block, token_count(text[:at].encode()), "stop_sequence", stop)


def _text_block(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}
