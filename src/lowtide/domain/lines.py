"""The bytes of result lines, and the JSON texts that may stand in them.

A line is one LF-terminated JSON object in the contract's key order (`message-batches-api.md`, section 6.1). No line
contains a raw CR, LF, U+2028, U+2029 or U+0085: those break clients that split on more than LF.
"""

import re
from typing import Final

import msgspec

from lowtide.domain.errors import ErrorType
from lowtide.domain.outcomes import Outcome

_SEPARATORS: Final = {b"\xe2\x80\xa8": b"\\u2028", b"\xe2\x80\xa9": b"\\u2029", b"\xc2\x85": b"\\u0085"}
_SEPARATOR = re.compile(b"|".join(_SEPARATORS))
_encode = msgspec.json.Encoder().encode


def one_line(json_text: bytes) -> bytes:
    """Return valid UTF-8 JSON as one line: raw CR and LF removed (white space there), U+2028, U+2029, U+0085 escaped.

    In valid JSON a raw line break stands only between tokens and a raw separator only inside strings, so neither
    change touches a value.
    """
    if b"\n" in json_text or b"\r" in json_text:
        json_text = json_text.replace(b"\n", b"").replace(b"\r", b"")
    if not json_text.isascii() and (b"\xe2\x80" in json_text or b"\xc2\x85" in json_text):
        json_text = _SEPARATOR.sub(lambda found: _SEPARATORS[found[0]], json_text)
    return json_text


def succeeded_line(custom_id: str, message: bytes) -> bytes:
    """Return the line of a succeeded request; `message` is a JSON object that went through `one_line`."""
    return b'{"custom_id":"%b","result":{"type":"succeeded","message":%b}}\n' % (custom_id.encode(), message)


def error_result(error_type: ErrorType, message: str, request_id: str | None) -> bytes:
    """Return the JSON of an errored result's `error`: a whole error response, `details` first.

    `request_id` is None for what failed before it ran, a `workerreq_` id for what failed at run time.
    """
    text = one_line(_encode(message))
    run = b"null" if request_id is None else b'"%b"' % request_id.encode()
    return b'{"type":"error","error":{"details":null,"type":"%b","message":%b},"request_id":%b}' % (
        error_type.encode(),
        text,
        run,
    )


def errored_line(custom_id: str, error: bytes) -> bytes:
    """Return the line of an errored request; `error` comes from `error_result`."""
    return b'{"custom_id":"%b","result":{"type":"errored","error":%b}}\n' % (custom_id.encode(), error)


def closing_line(custom_id: str, outcome: Outcome, error: bytes | None) -> bytes:
    """Return the line that a closed chunk implies for a request it never resolved."""
    if outcome is Outcome.ERRORED:
        if error is None:
            message = "an errored closing carries its error"
            raise ValueError(message)
        return errored_line(custom_id, error)
    return b'{"custom_id":"%b","result":{"type":"%b"}}\n' % (custom_id.encode(), outcome.encode())
