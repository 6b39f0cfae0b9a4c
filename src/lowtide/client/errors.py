"""What can go wrong for a client, each with a text for a person.

ClientError
├── Unusable      what was given cannot be used: a URL, a key, a line of the input
├── Unreachable   no connection, or none of the time that it was given
├── BrokenOff     the connection broke before the answer was whole
├── TimedOut      a batch has not ended in the time that was given (`watching`)
├── Incomplete    results are missing: the batch runs, or the file has not all lines
├── Unreadable    an answer that is none of this API
└── Refused       the server's own error: status, text, request id
"""

from lowtide.domain.errors import LowtideError


class ClientError(LowtideError):
    """The root of what the client raises."""


class Unusable(ClientError):
    """What was given cannot be used; nothing was sent, or nothing that counts."""


class Unreachable(ClientError):
    """The server cannot be reached, or did not answer in time."""


class BrokenOff(ClientError):
    """The connection ended before the answer was whole. `sent`: the server may have taken the whole call."""

    def __init__(self, message: str, *, sent: bool = True) -> None:
        super().__init__(message)
        self.sent = sent


class Incomplete(ClientError):
    """There are not as many results as requests, so they are not taken for the whole."""


class Unreadable(ClientError):
    """The answer is not one of the Message Batches API: the URL may lead somewhere else."""


class Refused(ClientError):
    """The server said no, in its own words."""

    def __init__(self, status: int, message: str, request_id: str | None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.request_id = request_id

    def __str__(self) -> str:
        where = f"status {self.status}" + (f", request-id {self.request_id}" if self.request_id else "")
        return f"{self.message} ({where})"
