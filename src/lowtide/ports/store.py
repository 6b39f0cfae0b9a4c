"""The whole store: one database answers the ports of batches, of access and of what is going on."""

from typing import Protocol

from lowtide.ports.access import AccessStore
from lowtide.ports.live import LiveStore
from lowtide.ports.metadata import MetadataStore


class Store(MetadataStore, AccessStore, LiveStore, Protocol):
    """What a database driver is; its parts get no more of it than they need."""
