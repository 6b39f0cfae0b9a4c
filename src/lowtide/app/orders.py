"""What a supervisor tells a child process: one line of JSON on its standard input, which then stays open.

The pipe is the child's lifeline: nothing more is ever written, and its end means that the supervisor is dead. Settings
name keys but never hold them, so that this line, too, holds no secret.
"""

import os

from pydantic import BaseModel, ConfigDict, ValidationError

from lowtide.app.settings import Settings
from lowtide.domain.errors import SettingsError

LIFELINE = 0
"""The descriptor of the pipe in the child."""


class Orders(BaseModel):
    """A child's name, the settings, what it inherits, and which of that is the listening socket of an API process."""

    model_config = ConfigDict(frozen=True)

    name: str
    settings: Settings
    listener: int | None = None
    inherited: tuple[int, ...] = ()

    def line(self) -> bytes:
        """Return what goes down the pipe."""
        return self.model_dump_json().encode() + b"\n"


def receive() -> Orders:
    """Return the orders given to this process; raises SettingsError if none were.

    What it inherited goes no further: a process that it starts must not keep the socket or the data directory from the
    next API process.
    """
    line = bytearray()
    while not line.endswith(b"\n"):
        piece = os.read(LIFELINE, 65536)
        if not piece:
            break
        line += piece
    try:
        orders = Orders.model_validate_json(bytes(line))
    except ValidationError:
        raise SettingsError("This process is started by `lowtide serve`, not by hand.") from None
    for descriptor in orders.inherited:
        os.set_inheritable(descriptor, False)
    return orders
