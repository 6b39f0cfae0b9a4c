"""Logs: one line for each event on standard error, JSON or readable, from our code and from the libraries alike.

They carry ids and figures, never the contents of requests, replies, keys or queries: events are named, their values
are given one by one, and a traceback is printed without the values of its variables.
"""

import logging
import sys
from collections.abc import Sequence
from typing import TextIO

import structlog
from structlog.typing import Processor

from lowtide.app.settings import LogSettings

_QUIET = ("uvicorn", "uvicorn.error", "sqlalchemy", "alembic", "asyncio")
"""Libraries whose routine is not news."""


def configure(settings: LogSettings, *, to: TextIO | None = None, **bound: str) -> None:
    """Route everything to standard error, or to the file `to`; `bound` goes with every line of this process."""
    text = settings.format == "text" or (settings.format == "auto" and sys.stderr.isatty())
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    shared = _shared(bound)
    handler = logging.StreamHandler(to or sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processors=_last(text=text), foreign_pre_chain=shared))
    logging.basicConfig(handlers=[handler], level=level, force=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    logging.captureWarnings(capture=True)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


def _shared(bound: dict[str, str]) -> list[Processor]:
    def bind(_logger: object, _name: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        return {**bound, **event}

    return [
        structlog.contextvars.merge_contextvars,
        bind,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]


def _last(*, text: bool) -> Sequence[Processor]:
    strip = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    if text:
        tracebacks = structlog.dev.plain_traceback
        return [strip, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=tracebacks)]
    return [strip, structlog.processors.format_exc_info, structlog.processors.JSONRenderer(ensure_ascii=False)]
