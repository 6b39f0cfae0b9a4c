"""The errors of Lowtide.

    LowtideError
    ├── ContractError      what a caller is told: a status, a type of the contract, a text
    │   ├── InvalidRequest · Unauthorized · Forbidden · NotFound · MethodNotAllowed · TooLarge · RateLimited · …
    ├── StorageError
    │   ├── StoreUnavailable   the database cannot be reached or is busy; try again
    │   │   └── StoreFull      the disk or the store takes no more bytes
    │   ├── UploadGone         upkeep removed this upload; the create must fail
    │   ├── SessionPast        this session was reaped; a worker starts a new one
    │   ├── BlocksMoved        a merge moved the blocks of a batch between two pages; a reader seeks again
    │   ├── ObjectMissing · ObjectDamaged · ObjectExists
    └── SettingsError      a setting that cannot be; its text names the setting

Texts and types: `message-batches-api.md`, sections 4 and 10.
"""

import errno
from collections.abc import Mapping
from enum import StrEnum


class ErrorType(StrEnum):
    """The contract's error types. The first nine are those that a result line may carry."""

    INVALID_REQUEST = "invalid_request_error"
    AUTHENTICATION = "authentication_error"
    BILLING = "billing_error"
    PERMISSION = "permission_error"
    NOT_FOUND = "not_found_error"
    RATE_LIMIT = "rate_limit_error"
    TIMEOUT = "timeout_error"
    API = "api_error"
    OVERLOADED = "overloaded_error"
    TOO_LARGE = "request_too_large"


RESULT_ERROR_TYPES = frozenset(ErrorType) - {ErrorType.TOO_LARGE}


class LowtideError(Exception):
    """The root of every error that Lowtide raises on purpose."""


class ContractError(LowtideError):
    """A refusal in the contract's envelope: status, error type, text and extra headers."""

    def __init__(
        self, status: int, error_type: ErrorType, message: str, *, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error_type = error_type
        self.message = message
        self.headers = dict(headers or {})


class InvalidRequest(ContractError):
    """400: the call itself is wrong; the text names the place."""

    def __init__(self, message: str) -> None:
        super().__init__(400, ErrorType.INVALID_REQUEST, message)


class Unauthorized(ContractError):
    """401: no credential, or one we do not know."""

    def __init__(self, message: str) -> None:
        super().__init__(401, ErrorType.AUTHENTICATION, message)


class Forbidden(ContractError):
    """403: a key that we know, used for what it does not allow."""

    def __init__(self, message: str) -> None:
        super().__init__(403, ErrorType.PERMISSION, message)


class NotFound(ContractError):
    """404: an unknown path, an unknown id, or another workspace's id."""

    def __init__(self, message: str = "Not found") -> None:
        super().__init__(404, ErrorType.NOT_FOUND, message)


class MethodNotAllowed(ContractError):
    """405: the path exists, with other methods."""

    def __init__(self, allow: str) -> None:
        super().__init__(405, ErrorType.INVALID_REQUEST, "Method Not Allowed", headers={"allow": allow})


class TooSlow(ContractError):
    """408: a body that trickles in."""

    def __init__(self, message: str) -> None:
        super().__init__(408, ErrorType.INVALID_REQUEST, message, headers={"x-should-retry": "false"})


class TooLarge(ContractError):
    """413: the body passes the limit, as sent or decoded."""

    def __init__(self, message: str = "Request exceeds the maximum size") -> None:
        super().__init__(413, ErrorType.TOO_LARGE, message)


class KeyReused(ContractError):
    """422: the same Idempotency-Key with another body."""

    def __init__(self) -> None:
        super().__init__(
            422,
            ErrorType.INVALID_REQUEST,
            "Idempotency-Key: this key was used with a different request body",
            headers={"x-should-retry": "false"},
        )


class RateLimited(ContractError):
    """429: too many calls, intakes or queued requests; `retry-after` says when."""

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(429, ErrorType.RATE_LIMIT, message, headers={"retry-after": str(retry_after_s)})


class InternalError(ContractError):
    """500: our own fault; the text says nothing of it, the log does."""

    def __init__(self) -> None:
        super().__init__(500, ErrorType.API, "Internal server error")


class Overloaded(ContractError):
    """529: we cannot take this now (the disk is full, the database is busy); trying again is right."""

    def __init__(self, message: str = "Overloaded", *, retry_after_s: int = 5) -> None:
        super().__init__(529, ErrorType.OVERLOADED, message, headers={"retry-after": str(retry_after_s)})


class StorageError(LowtideError):
    """The root of what a storage driver raises."""


class StoreUnavailable(StorageError):
    """The database cannot be reached or stays locked; nothing was decided, the operation may be repeated."""


FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
"""What the system says of a disk that takes no more bytes; it becomes StoreFull."""


class StoreFull(StoreUnavailable):
    """The disk or the store takes no more bytes, or is read-only: whoever waits for a store waits for room too."""


class UploadGone(StorageError):
    """Upkeep removed this upload's row: its object may be gone, the create must fail."""


class SessionPast(StorageError):
    """This session is past and holds nothing any more; a worker starts a new one."""


class BlocksMoved(StorageError):
    """A merge moved the blocks of this batch since the page before: the bytes are the same, their places are not."""


class ObjectMissing(StorageError):
    """No object has this key."""


class ObjectDamaged(StorageError):
    """The object is shorter than its rows say, or its bytes do not match their checksum."""


class ObjectExists(StorageError):
    """Another object, of other content, has this key."""


class SettingsError(LowtideError):
    """A setting that cannot be used; the text is one sentence that names it."""
