"""The log: one event a line on stderr, as JSON or for people.

Events are short constant phrases; what they are about goes into fields::

    log.info("model loaded", extra={"model": "breast_cancer", "version": 3})

What libraries have to say is all one event, with their words in a field.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

LOGGER = "dropserve"

_OF_A_LIBRARY = "library message"

_STANDARD_ATTRIBUTES = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, event, the event's fields, and a bug's stack trace."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line: dict[str, Any] = {
            "time": _time(record).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": _event(record),
        }
        # A library's field of one of these names must not take its place.
        line |= {name: value for name, value in _fields(record).items() if name not in line}
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class ConsoleFormatter(logging.Formatter):
    """Time, level, event and ``field=value`` pairs; a bug's stack trace on the lines after it."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and those of a bug's stack trace."""
        fields = " ".join(f"{name}={_readable(value)}" for name, value in _fields(record).items())
        line = f"{_time(record):%H:%M:%S} {record.levelname.lower():<7} {_event(record)}  {fields}".rstrip()
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def configure(
    form: Literal["auto", "json", "console"], level: str, stream: TextIO | None = None, **fields: object
) -> logging.Logger:
    """Send the log, and warnings of the libraries, to `stream` (default: stderr); return our logger.

    Every line has the further `fields`.
    """
    stream = sys.stderr if stream is None else stream
    json_lines = form == "json" or (form == "auto" and not stream.isatty())
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter() if json_lines else ConsoleFormatter())
    handler.addFilter(lambda record: vars(record).update(fields) is None)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.captureWarnings(True)
    logger = logging.getLogger(LOGGER)
    logger.setLevel(level.upper())
    return logger


def catch_uncaught() -> None:
    """Log what Python itself would print between our lines: exceptions that nothing catches."""
    logger = logging.getLogger(LOGGER)

    def uncaught(error: BaseException | None, where: object) -> None:
        logger.critical("uncaught exception", extra={"where": where}, exc_info=error)

    sys.excepthook = lambda _kind, error, _trace: uncaught(error, "main thread")
    sys.unraisablehook = lambda raised: uncaught(raised.exc_value, repr(raised.object))
    threading.excepthook = lambda raised: uncaught(
        raised.exc_value, raised.thread.name if raised.thread else "thread"
    )


def _time(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)


def _event(record: logging.LogRecord) -> str:
    return record.getMessage() if record.name == LOGGER else _OF_A_LIBRARY


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields = {name: value for name, value in vars(record).items() if name not in _STANDARD_ATTRIBUTES}
    if record.name != LOGGER:
        fields = {"logger": record.name, "message": record.getMessage()} | fields
    return fields


def _readable(value: object) -> str:
    # Callers choose some values: quoted as JSON, none of them can break or forge a line.
    text = str(value)
    return text if text.isascii() and text.isprintable() and not set(text) & set(' "=') else json.dumps(text)
