"""What an upstream's reply means for the request it answers.

Owns the line between what becomes a result for good and what is tried again. Nothing that is not a whole, valid
Message becomes a success; a reply that is nearly one is put right (`dispatch.message`). Whatever a reply holds, it
cannot break a result line (one-failure-is-one). Texts of errors are bounded and one line long.
"""

import re
import time
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

import msgspec

from lowtide.dispatch.message import NotAMessage, put_right
from lowtide.dispatch.problem import Problem, read_problem
from lowtide.domain.errors import ErrorType
from lowtide.domain.outcomes import Usage
from lowtide.ports.upstream import Reply

RETRY_AFTER_MAX_S: Final = 3600.0
"""No upstream makes a request wait longer than this by one header."""


class Succeeded(msgspec.Struct, frozen=True):
    """A Message as one line of JSON, and what it cost."""

    message: bytes
    usage: Usage


class Failed(msgspec.Struct, frozen=True):
    """The request is at fault: it becomes an errored result and is not tried again."""

    error_type: ErrorType
    message: str


class Busy(msgspec.Struct, frozen=True):
    """The upstream takes no more now; it may have said when."""

    retry_after_s: float | None


class Faulty(msgspec.Struct, frozen=True):
    """The upstream failed in a way that may pass; the text is for the case that it does not."""

    error_type: ErrorType
    message: str


class Refused(msgspec.Struct, frozen=True):
    """The upstream refuses us (our credential, our account), not this request."""

    reason: str


class UnknownModel(msgspec.Struct, frozen=True):
    """The upstream answers, and has no such model."""


class NoEndpoint(msgspec.Struct, frozen=True):
    """What answers there is no server of `/v1/messages`."""

    reason: str


Verdict = Succeeded | Failed | Busy | Faulty | Refused | UnknownModel | NoEndpoint

_SPEAKS_OF_MODEL: Final = re.compile(r"\bmodels?\b", re.IGNORECASE)
_MISSING_ENDPOINT: Final = re.compile(r"^(\w+ ){0,3}not found\W*$|/v1/|\b(endpoint|route|url|path)\b", re.IGNORECASE)
_OUT_OF_CREDIT: Final = "credit balance is too low"
_UNSUPPORTED: Final = re.compile(r"\b(not|un)[ -]?supported\b", re.IGNORECASE)
"""llama.cpp answers 500 to an image that its model cannot read; trying that again would never help."""


def judge(reply: Reply, *, model: str) -> Verdict:
    """Say what `reply` means for a request that asked for `model`."""
    if reply.status == 200:
        try:
            return Succeeded(*put_right(reply.body, model))
        except NotAMessage as error:
            problem = read_problem(reply.body)
            return Faulty(
                problem.type_or(ErrorType.API), problem.message or f"the upstream's reply is no message: {error}"
            )
    return _judge_status(reply, read_problem(reply.body))


def _judge_status(reply: Reply, problem: Problem) -> Verdict:  # noqa: PLR0911 - one line per status
    status = reply.status
    text = problem.message or f"the upstream answered with HTTP status {status}"
    match status:
        case 429 | 503 | 529:
            return Busy(retry_after_s(reply.headers))
        case 401 | 402 | 403:
            return Refused(text)
        case 404:
            return _judge_not_found(problem, text)
        case 405:
            return NoEndpoint(text)
        case _ if 300 <= status < 400:
            return NoEndpoint(f"it redirects (HTTP status {status}), which is not followed")
        case 408:
            return Faulty(ErrorType.TIMEOUT, text)
        case 504:
            return Faulty(problem.type_or(ErrorType.TIMEOUT), text)
        case 400 if _OUT_OF_CREDIT in text:
            return Refused(text)
        case _ if 400 <= status < 500 and status not in {409, 425}:
            return Failed(problem.type_or(ErrorType.INVALID_REQUEST), text)
        case 500 | 501 if _UNSUPPORTED.search(problem.message):
            return Failed(ErrorType.INVALID_REQUEST, text)
        case _:
            return Faulty(problem.type_or(ErrorType.API), text)


def _judge_not_found(problem: Problem, text: str) -> Verdict:
    """Tell an unknown model from a server without the endpoint, and both from something else that the params name."""
    if _SPEAKS_OF_MODEL.search(problem.message):
        return UnknownModel()
    if (
        problem.enveloped
        and problem.error_type is ErrorType.NOT_FOUND
        and not _MISSING_ENDPOINT.search(problem.message)
    ):
        return Failed(ErrorType.NOT_FOUND, text)
    return NoEndpoint(text)


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a reply asks to wait, at most RETRY_AFTER_MAX_S; None when it says nothing usable.

    Sources: RFC 9110, section 10.2.3 (seconds or a date); `retry-after-ms` is honoured by the SDKs.
    """
    waits = (_number(headers.get("retry-after-ms"), 1000.0), _number(headers.get("retry-after"), 1.0), _date(headers))
    wait_s = next((wait for wait in waits if wait is not None), None)
    return None if wait_s is None else min(wait_s, RETRY_AFTER_MAX_S)


def _number(text: str | None, per_second: float) -> float | None:
    if text is None:
        return None
    try:
        wait_s = float(text) / per_second
    except ValueError:
        return None
    return wait_s if wait_s >= 0 else None


def _date(headers: Mapping[str, str]) -> float | None:
    """Return how far the date lies ahead of the reply's own date: the two clocks then need not agree."""
    until = _moment(headers.get("retry-after"))
    if until is None:
        return None
    now = _moment(headers.get("date"))
    return max(0.0, until - (time.time() if now is None else now))


def _moment(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        moment = parsedate_to_datetime(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
