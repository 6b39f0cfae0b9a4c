"""Identifiers in the contract's shape: a prefix, `_01`, then 22 characters of the base58 alphabet.

Source: `message-batches-api.md`, section 2. Ids are opaque to clients and unguessable: 22 base58 characters
hold 128 bits of randomness.
"""

import re
import secrets

_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"

BATCH = "msgbatch"
CALL = "req"
RUN = "workerreq"
MESSAGE = "msg"
WORKSPACE = "wrkspc"
KEY = "key"

DEFAULT_WORKSPACE = "wrkspc_01DefauLtWorkspace111111"
"""The one workspace of a server without keys."""

ORGANIZATION = "00000000-0000-4000-8000-000000000000"
"""What `anthropic-organization-id` says: a Lowtide is one organization."""

CUSTOM_ID_PATTERN = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def new_id(prefix: str) -> str:
    """Return a new random id, such as `msgbatch_01…` for the prefix `msgbatch`."""
    number = secrets.randbits(128)
    digits = []
    for _ in range(22):
        number, digit = divmod(number, 58)
        digits.append(_ALPHABET[digit])
    return f"{prefix}_01{''.join(digits)}"


def new_token() -> str:
    """Return 128 random bits as 32 hex digits, for names that no two writers may share."""
    return secrets.token_hex(16)
