"""The log: one renderer for everything that any part of a process says.

Hermod's own entries come through structlog; those of the standard library, which
gunicorn and `warnings` use, are given the same form. All go to standard error.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol, TextIO

import structlog
from msgspec import json

from queues.redaction import hide_password

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor, WrappedLogger

_HIDDEN = "***"
_SECRET_KEY = re.compile(
    r"(?:^|[_-])(?:token|secret|password|passwd|authorization|cookie|signature|credentials?|body|bodies"
    r"|(?:secret|signing|encryption|api|private)[_-]keys?)$",
    re.IGNORECASE,
).search
_TOKEN = re.compile(r"\b(hmd_[0-9a-f]{16})_[\w-]+")


class Options(Protocol):
    """What is needed of `transport.settings.LogSettings`."""

    @property
    def level(self) -> str:
        """The least grave level that is written: debug, info, warning or error."""

    @property
    def format(self) -> str:
        """One of auto, human and json."""


def configure(options: Options, stream: TextIO | None = None) -> None:
    """Send all that is logged from now on to the stream, standard error by default."""
    stream = stream or sys.stderr
    level = getattr(logging, options.level.upper())
    human = options.format == "human" or (options.format == "auto" and stream.isatty())
    common: list[Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        redact,
    ]
    rendering = _human(stream.isatty()) if human else _json()
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, *common, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(stream),
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[_add_logger, *common],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    logging.basicConfig(handlers=[handler], level=level, force=True)
    logging.captureWarnings(capture=True)


def redact(logger: WrappedLogger, method: str, entry: EventDict) -> EventDict:
    """Hide what must never be logged, should anybody ever try: the last wall, not the first."""
    for name, value in entry.items():
        entry[name] = _clean(name, value)
    return entry


@lru_cache(maxsize=1024)
def _is_secret(name: str) -> bool:
    return _SECRET_KEY(name) is not None


def _clean(name: str, value: object) -> object:
    if _is_secret(name):
        return _HIDDEN
    if isinstance(value, str):
        if "hmd_" in value:
            value = _TOKEN.sub(rf"\1_{_HIDDEN}", value)
        return hide_password(value) if "://" in value else value
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if isinstance(value, Mapping):
        return {inner: _clean(str(inner), inner_value) for inner, inner_value in value.items()}
    return value


def _human(colours: bool) -> list[Processor]:
    return [
        _printable,
        # The default for tracebacks prints local variables: bodies and tokens.
        structlog.dev.ConsoleRenderer(
            colors=colours,
            timestamp_key="time",
            exception_formatter=structlog.dev.plain_traceback,
            pad_event_to=0,
            sort_keys=False,
        ),
    ]


def _json() -> list[Processor]:
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(_dump)]


def _dump(entry: EventDict, **_: Any) -> str:  # noqa: ANN401 - structlog's signature
    return json.encode(entry, enc_hook=repr).decode()


def _printable(logger: WrappedLogger, method: str, entry: EventDict) -> EventDict:
    """Keep clients from sending escape sequences to the operator's terminal."""
    for name, value in entry.items():
        if isinstance(value, str) and not value.isprintable():
            entry[name] = value.encode("unicode_escape").decode()
    return entry


def _add_logger(logger: WrappedLogger, method: str, entry: EventDict) -> EventDict:
    entry["logger"] = entry["_record"].name
    return entry
