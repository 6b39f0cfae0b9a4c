"""What the doors stand on, put together by the composition root."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from lowtide.api.address import Networks
from lowtide.api.watch import Live
from lowtide.domain.limits import Limits
from lowtide.intake.create import Intake
from lowtide.ports.access import AccessStore, CallBudget
from lowtide.ports.clock import Clock
from lowtide.ports.metadata import MetadataStore
from lowtide.ports.objects import ObjectStore
from lowtide.ports.upstream import Upstream
from lowtide.results.reader import Results


@dataclass(frozen=True, slots=True)
class Services:
    """The services and ports behind the doors.

    `public_url` is what clients call us, without a final slash; None to build it from each call. Forwarded headers
    count only from an address within `trusted_proxies`. `ready` returns when calls can be served, and raises a
    LowtideError that says why not.
    """

    store: MetadataStore
    access: AccessStore
    budget: CallBudget
    objects: ObjectStore
    intake: Intake
    results: Results
    live: Live
    upstreams: Sequence[Upstream]
    clock: Clock
    limits: Limits
    public_url: str | None
    trusted_proxies: Networks
    ready: Callable[[], Awaitable[None]]
