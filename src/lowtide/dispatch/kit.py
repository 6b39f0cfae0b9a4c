"""What a worker works with: handed from one part of it to the next instead of six arguments."""

from collections.abc import Sequence
from dataclasses import dataclass

from lowtide.dispatch.choose import Chooser
from lowtide.dispatch.report import Reporter
from lowtide.dispatch.settings import WorkerSettings
from lowtide.ports.clock import Clock
from lowtide.ports.metadata import MetadataStore
from lowtide.ports.objects import ObjectStore
from lowtide.ports.upstream import Upstream


@dataclass(frozen=True, slots=True)
class Kit:
    """A worker's ports and figures, its memory of who was served and what it has to tell."""

    store: MetadataStore
    objects: ObjectStore
    upstreams: Sequence[Upstream]
    settings: WorkerSettings
    clock: Clock
    chooser: Chooser
    reporter: Reporter
