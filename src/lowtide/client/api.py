"""The operations of the API, each with the tries that it is worth.

A call is made again after an answer that may pass (429, 5xx) or a connection that broke; a connection that could not
be made is told at once. A create whose answer was lost is repeated only at a server that knows `Idempotency-Key`: the
second batch of the others would be paid for.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from urllib.parse import quote, urlencode

from lowtide.client.errors import BrokenOff, ClientError, Refused, Unreadable
from lowtide.client.exchange import Answer, Upload, exchange
from lowtide.client.pauses import is_passing, pause_s, retry_after_s
from lowtide.client.server import Server
from lowtide.client.shapes import Found, Live, Page, error_text, found, one_line, read
from lowtide.domain.ids import ORGANIZATION

BATCHES = "/v1/messages/batches"
LIVE = "/lowtide/batches"
WORKERS = "/lowtide/workers"
_MISSING = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_ACCEPTABLE})
_NONE: frozenset[int] = frozenset()
_RANGE_ANSWERS: frozenset[int] = frozenset({HTTPStatus.PARTIAL_CONTENT, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE})


@dataclass(frozen=True, slots=True)
class Greeting:
    """What is known of a server after a first call: whether it is a Lowtide, and its clock, in whole seconds."""

    is_ours: bool
    time_s: float | None


class Api:
    """One server of the API. `say` tells a person of every pause."""

    def __init__(self, server: Server, say: Callable[[str], None]) -> None:
        self.server = server
        self.say = say

    def greet(self) -> Greeting:
        """Learn what server this is; raises what a wrong URL or key deserves, before much is sent."""
        data, headers = self._read("GET", f"{BATCHES}?limit=1")
        read(data, Page)
        return Greeting(headers.get("anthropic-organization-id") == ORGANIZATION, _time_s(headers))

    def create(self, upload: Upload, key: str, *, again: bool) -> Found:
        """Create a batch; `again` allows another try if the answer was lost."""
        headers = {"idempotency-key": key}
        with self._call("POST", BATCHES, headers, upload=upload, again=again) as answer:
            return found(answer.read())

    def batch(self, batch_id: str) -> tuple[Found, float | None]:
        """Return a batch, and the seconds after which the server likes to be asked again."""
        data, headers = self._read("GET", _path(BATCHES, batch_id))
        return found(data), retry_after_s(headers)

    def page(self, query: Mapping[str, str | int]) -> Page:
        """Return a page of batches, newest first."""
        return read(self._read("GET", f"{BATCHES}?{urlencode(query)}")[0], Page)

    def cancel(self, batch_id: str) -> Found:
        """Cancel a batch."""
        return found(self._read("POST", _path(BATCHES, batch_id, "/cancel"))[0])

    def delete(self, batch_id: str) -> bytes:
        """Delete a batch and return the server's JSON, on one line."""
        return one_line(self._read("DELETE", _path(BATCHES, batch_id))[0])

    def results(self, batch_id: str, offset: int = 0, etag: str | None = None) -> Answer:
        """Open the results at their fixed path, from `offset` on if they still are those of `etag`.

        Not at `results_url`: it may name a host that is not the one the key is meant for.
        """
        wanted = {"range": f"bytes={offset}-", "if-range": etag} if offset and etag else {}
        return self._call("GET", _path(BATCHES, batch_id, "/results"), wanted, fine=_RANGE_ANSWERS)

    def live(self, batch_id: str) -> Found | None:
        """Return the live figures of a batch, or None when the server has none."""
        try:
            data, _ = self._read("GET", _path(LIVE, batch_id))
        except Refused as error:
            if is_missing(error):
                return None
            raise
        return found(data, Live)

    def events(self, batch_id: str) -> Answer:
        """Open the events of a batch of ours; 404 from a server that has none."""
        return self._call("GET", _path(LIVE, batch_id, "/events"), {"accept": "text/event-stream"})

    def results_so_far(self, batch_id: str, after: int) -> Answer:
        """Open what a batch of ours has from byte `after` on; with `x-lowtide-next` in its headers more will come."""
        return self._call("GET", _path(LIVE, batch_id, f"/results?after={after}"))

    def workers(self) -> bytes:
        """Return the workers of a server of ours, as its JSON."""
        return self._read("GET", WORKERS)[0]

    def pause(self, error: ClientError, pause_s: float) -> None:
        """Say what happened and wait."""
        self.say(f"{error} Trying again in {pause_s:.3g} s.")
        time.sleep(pause_s)

    def _read(self, method: str, path: str) -> tuple[bytes, Mapping[str, str]]:
        """Return the body and the headers of a small answer, asked for again when it breaks off."""
        tries = 0
        while True:
            try:
                with self._call(method, path) as answer:
                    return answer.read(), answer.headers
            except BrokenOff as error:
                tries += 1
                if tries > self.server.retries:
                    raise
                self.pause(error, pause_s(tries))

    def _call(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        *,
        upload: Upload | None = None,
        again: bool = True,
        fine: frozenset[int] = _NONE,
    ) -> Answer:
        """Return an answer that is no error; `again`: a call whose answer was lost may be made once more."""
        tries = 0
        while True:
            tries += 1
            try:
                answer = exchange(self.server, method, path, headers or {}, upload)
            except BrokenOff as error:
                if tries > self.server.retries or (error.sent and not again):
                    raise
                self.pause(error, pause_s(tries))
                continue
            if answer.status == HTTPStatus.OK or answer.status in fine:
                return answer
            with answer:
                error_told = _refusal(answer, self.server)
                wait_s = retry_after_s(answer.headers)
                if tries > self.server.retries or not is_passing(answer.status, answer.headers, wait_s):
                    raise error_told
            self.pause(error_told, pause_s(tries, wait_s))


def is_missing(error: Refused) -> bool:
    """Tell whether a server has not what only a Lowtide has."""
    return error.status in _MISSING


def _path(root: str, batch_id: str, rest: str = "") -> str:
    return f"{root}/{quote(batch_id, safe='')}{rest}"


def _refusal(answer: Answer, server: Server) -> ClientError:
    """Return the server's own words, or what else there is to say of an answer that has none."""
    try:
        text, request_id = error_text(answer.read())
    except BrokenOff:
        text, request_id = None, None
    request_id = answer.headers.get("request-id") or request_id
    if text is not None:
        return Refused(answer.status, text, request_id)
    place = answer.headers.get("location")
    if place is not None:
        return Unreadable(f"{server.url} leads on to {place}; name by --url the server that answers itself.")
    if answer.status < HTTPStatus.BAD_REQUEST:
        return Unreadable(f"{server.url} answered with status {answer.status}; is it a server of Message Batches?")
    reason = HTTPStatus(answer.status).phrase if answer.status in _KNOWN else "no reason given"
    return Refused(answer.status, reason, request_id)


_KNOWN = frozenset(HTTPStatus)


def _time_s(headers: Mapping[str, str]) -> float | None:
    """Return the server's wall time in seconds since 1970, or None if it does not say."""
    try:
        return parsedate_to_datetime(headers["date"]).timestamp()
    except (KeyError, ValueError):
        return None
