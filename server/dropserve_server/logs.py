"""The log: one event a line on stderr, as JSON or for people.

Events are short constant phrases; what they are about goes into fields::

    log.info("model loaded", extra={"model": "breast_cancer", "version": 3})
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

LOGGER = "dropserve"

_STANDARD_ATTRIBUTES = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, event, the event's fields, and a bug's stack trace."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line: dict[str, Any] = {
            "time": _time(record).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class ConsoleFormatter(logging.Formatter):
    """Time, level, event and ``field=value`` pairs; a bug's stack trace on the lines after it."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and those of a bug's stack trace."""
        fields = " ".join(f"{name}={_readable(value)}" for name, value in _fields(record).items())
        line = (
            f"{_time(record):%H:%M:%S} {record.levelname.lower():<7} {record.getMessage()}  {fields}".rstrip()
        )
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def configure(
    form: Literal["auto", "json", "console"], level: str, stream: TextIO | None = None
) -> logging.Logger:
    """Send the log, and warnings of the libraries, to `stream` (default: stderr); return our logger."""
    stream = sys.stderr if stream is None else stream
    json_lines = form == "json" or (form == "auto" and not stream.isatty())
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter() if json_lines else ConsoleFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.captureWarnings(True)
    logger = logging.getLogger(LOGGER)
    logger.setLevel(level.upper())
    return logger


def _time(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD_ATTRIBUTES}


def _readable(value: object) -> str:
    # Callers choose some values: quoted as JSON, none of them can break or forge a line.
    text = str(value)
    return text if text.isascii() and text.isprintable() and not set(text) & set(' "=') else json.dumps(text)
