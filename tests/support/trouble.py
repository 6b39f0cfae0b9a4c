"""A real store that fails now and then: before an operation is done, or after it, when only its answer is lost."""

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from lowtide.storage.sqlite import SqliteStore
from support.lab import Lab


class TroubledStore:
    """Passes every operation on to a real store; `before` and `after` say how often one of a name fails, and how."""

    def __init__(
        self,
        store: SqliteStore,
        *,
        before: dict[str, list[Exception]] | None = None,
        after: dict[str, list[Exception]] | None = None,
    ) -> None:
        self.store = store
        self.before = before or {}
        self.after = after or {}
        self.calls: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        operation = getattr(self.store, name)

        async def troubled(*args: Any, **kwargs: Any) -> Any:
            self.calls[name] += 1
            if self.before.get(name):
                raise self.before[name].pop()
            answer = await operation(*args, **kwargs)
            if self.after.get(name):
                raise self.after[name].pop()
            return answer

        return troubled


def troubled(lab: Lab, **failures: dict[str, list[Exception]]) -> tuple[Lab, TroubledStore]:
    """Return the lab as a worker sees it through a troubled store, and that store."""
    store = TroubledStore(lab.store, **failures)
    return replace(lab, store=store), store
