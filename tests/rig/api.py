"""The API as the rig calls it: plain HTTP from the standard library, one connection per call, no retries hidden inside."""

import http.client
import json
from dataclasses import dataclass
from typing import Any

TIMEOUT_S = 30.0


class NoAnswer(Exception):
    """The call had no whole answer: the server was down, killed or cut off."""


@dataclass(frozen=True)
class Answer:
    """A whole answer."""

    status: int
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def call(
    port: int,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
    timeout_s: float = TIMEOUT_S,
) -> Answer:
    """Return the whole answer to one call to the server on `port`, or raise NoAnswer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    sent = {
        "x-api-key": "rig",
        "anthropic-version": "2023-06-01",
        "content-type": "application/json",
        **(headers or {}),
    }
    try:
        connection.request(method, path, body, sent)
        reply = connection.getresponse()
        return Answer(reply.status, reply.read())
    except (OSError, http.client.HTTPException) as error:
        raise NoAnswer(repr(error)) from error
    finally:
        connection.close()


def all_batches(port: int) -> list[Any]:
    """Return every batch that the server lists, newest first."""
    found: list[Any] = []
    path = "/v1/messages/batches?limit=100"
    while True:
        answer = call(port, "GET", path)
        if answer.status != 200:
            raise NoAnswer(f"list answered {answer.status}")
        page = answer.json
        found += page["data"]
        if not page["has_more"]:
            return found
        path = f"/v1/messages/batches?limit=100&after_id={page['last_id']}"
