"""What this process counts of its own calls: how many, how they ended, how long until the head of the answer.

The outermost layer, so that refusals count as well. A route is labelled by its pattern, never by the path that was called,
and a method that we do not serve as `other`: labels are ours, not a client's.
"""

import time
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CALLS: Final = "lowtide_calls_total"
CALL_SECONDS: Final = "lowtide_call_seconds"
BOUNDS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0)
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "DELETE"})
NO_ROUTE, NO_METHOD, NO_ANSWER = "none", "other", "none"

disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more per counter, which says when we started


class Measures:
    """The counters of one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._calls = Counter(CALLS, "Calls.", ("route", "method", "status"), registry=self.registry)
        self._seconds = Histogram(
            CALL_SECONDS, "Seconds until the head.", ("route",), registry=self.registry, buckets=BOUNDS_S
        )

    def note(self, route: str, method: str, status: str, seconds: float) -> None:
        """Count a call."""
        self._calls.labels(route, method if method in _METHODS else NO_METHOD, status).inc()
        self._seconds.labels(route).observe(seconds)


class Measured:
    """ASGI middleware that measures every call."""

    def __init__(self, app: ASGIApp, measures: Measures) -> None:
        self._app = app
        self._measures = measures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began_s = time.perf_counter()
        status = NO_ANSWER

        def note() -> None:
            route = getattr(scope.get("endpoint"), "path", NO_ROUTE)
            self._measures.note(route, scope["method"], status, time.perf_counter() - began_s)

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
                note()
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            if status == NO_ANSWER:
                note()
