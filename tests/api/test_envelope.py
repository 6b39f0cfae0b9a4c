import json
import re
from typing import Any

import pytest
import structlog
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from lowtide.api.envelope import Envelope, contract_error
from lowtide.domain.errors import (
    ContractError,
    InvalidRequest,
    KeyReused,
    MethodNotAllowed,
    NotFound,
    ObjectDamaged,
    RateLimited,
    StoreFull,
    StoreUnavailable,
    TooLarge,
    Unauthorized,
)


class Sent:
    """What an application sends through the envelope."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    async def __call__(self, message: Message) -> None:
        self.messages.append(message)

    @property
    def status(self) -> int:
        return int(self.messages[0]["status"])

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.messages[0]["headers"]}

    @property
    def body(self) -> Any:
        return json.loads(b"".join(message.get("body", b"") for message in self.messages[1:]))


async def nothing() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def run(error: Exception, *, started: bool = False) -> Sent:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if started:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        raise error

    sent = Sent()
    await Envelope(app)({"type": "http"}, nothing, sent)
    return sent


@pytest.mark.parametrize(
    ("error", "status", "error_type", "headers"),
    [
        (InvalidRequest("x: bad"), 400, "invalid_request_error", {"x-should-retry": "false"}),
        (Unauthorized("invalid x-api-key"), 401, "authentication_error", {"x-should-retry": "false"}),
        (NotFound(), 404, "not_found_error", {"x-should-retry": "false"}),
        (MethodNotAllowed("GET"), 405, "invalid_request_error", {"allow": "GET"}),
        (TooLarge(), 413, "request_too_large", {"x-should-retry": "false"}),
        (KeyReused(), 422, "invalid_request_error", {"x-should-retry": "false"}),
        (RateLimited("slow", retry_after_s=7), 429, "rate_limit_error", {"retry-after": "7"}),
        (StoreUnavailable("busy"), 529, "overloaded_error", {"retry-after": "5"}),
        (StoreFull("full"), 529, "overloaded_error", {"retry-after": "5"}),
        (ObjectDamaged("bits"), 500, "api_error", {}),
        (ValueError("secret"), 500, "api_error", {}),
    ],
)
async def test_every_error_is_told_in_the_envelope(
    error: Exception, status: int, error_type: str, headers: dict[str, str]
) -> None:
    sent = await run(error)
    assert sent.status == status
    assert list(sent.body) == ["type", "error", "request_id"]
    assert sent.body["type"] == "error"
    assert sent.body["error"]["type"] == error_type
    assert sent.body["request_id"] == sent.headers["request-id"]
    assert re.fullmatch(r"req_01[1-9A-HJ-NP-Za-km-z]{22}", sent.headers["request-id"])
    assert sent.headers.items() >= headers.items()
    assert ("anthropic-organization-id" in sent.headers) is (status != 401)


async def test_a_retry_hint_stands_once() -> None:
    sent = await run(KeyReused())
    assert [name for name, _ in sent.messages[0]["headers"]].count(b"x-should-retry") == 1


async def test_a_fault_of_ours_is_logged_without_its_text_and_told_without_it() -> None:
    with structlog.testing.capture_logs() as logs:
        sent = await run(ValueError("a prompt"))
    assert sent.body["error"]["message"] == "Internal server error"
    assert logs[0]["event"] == "call.failed"
    assert logs[0]["error"] == "ValueError"
    assert "test_envelope" in logs[0]["stack"]
    assert "a prompt" not in str(logs)


async def test_a_refusal_is_no_fault_and_not_logged() -> None:
    with structlog.testing.capture_logs() as logs:
        await run(InvalidRequest("no"))
    assert logs == []


async def test_after_the_head_of_a_response_nothing_more_is_sent() -> None:
    with structlog.testing.capture_logs() as logs:
        sent = await run(ObjectDamaged("bits"), started=True)
    assert len(sent.messages) == 1
    assert logs[0]["event"] == "response.aborted"


async def test_a_client_that_left_is_told_nothing() -> None:
    assert (await run(ClientDisconnect())).messages == []


def test_a_contract_error_is_told_as_it_is() -> None:
    error = ContractError(418, NotFound().error_type, "teapot")
    assert contract_error(error) is error
