"""A reply as the Messages API's stream of server-sent events.

The order is the contract's: message_start, content_block_start, ping, deltas, content_block_stop, message_delta,
message_stop. Joined deltas give exactly the block that the same call gets without streaming.
"""

from typing import Any

import msgspec

from lowtide.simulate.reply import Reply

_encode = msgspec.json.Encoder().encode


def event(data: dict[str, Any]) -> bytes:
    """Return one event; its name is its data's type."""
    return b"event: %b\ndata: %b\n\n" % (data["type"].encode(), _encode(data))


class Events:
    """The events of one reply, made as its tokens come."""

    def __init__(self, message: dict[str, Any], reply: Reply) -> None:
        self._message = message
        self._reply = reply
        self._text = _text_of(reply)
        self._sent = 0

    def opening(self) -> bytes:
        usage = self._message["usage"] | {"output_tokens": min(1, self._reply.output_tokens)}
        start = self._message | {"content": [], "stop_reason": None, "stop_sequence": None, "usage": usage}
        parts = [event({"type": "message_start", "message": start})]
        if (block := self._reply.block) is not None:
            hollow: dict[str, Any] = {"input": {}} if block["type"] == "tool_use" else {"text": ""}
            empty = block | hollow
            parts.append(event({"type": "content_block_start", "index": 0, "content_block": empty}))
        parts.append(event({"type": "ping"}))
        return b"".join(parts)

    def delta(self, tokens: int) -> bytes:
        """Return the event that brings the text up to `tokens` tokens, or nothing if there is no more."""
        end = len(self._text) * tokens // max(1, self._reply.output_tokens)
        piece, self._sent = self._text[self._sent : end], max(end, self._sent)
        if not piece:
            return b""
        assert self._reply.block is not None
        called = self._reply.block["type"] == "tool_use"
        change = (
            {"type": "input_json_delta", "partial_json": piece} if called else {"type": "text_delta", "text": piece}
        )
        return event({"type": "content_block_delta", "index": 0, "delta": change})

    def closing(self) -> bytes:
        stop = {"stop_reason": self._reply.stop_reason, "stop_sequence": self._reply.stop_sequence}
        parts = [] if self._reply.block is None else [event({"type": "content_block_stop", "index": 0})]
        usage = {"output_tokens": self._reply.output_tokens}
        parts += [event({"type": "message_delta", "delta": stop, "usage": usage}), event({"type": "message_stop"})]
        return b"".join(parts)


def _text_of(reply: Reply) -> str:
    if reply.block is None:
        return ""
    if reply.block["type"] == "tool_use":
        return _encode(reply.block["input"]).decode()
    text: str = reply.block["text"]
    return text
