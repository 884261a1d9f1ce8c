"""One line an event, whatever a caller puts into it."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import warnings
from collections.abc import Iterator

import pytest

from dropserve_server import logs


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger(logs.LOGGER)
    before = root.handlers[:], root.level, ours.level
    yield
    root.handlers[:], level, our_level = before
    root.setLevel(level)
    ours.setLevel(our_level)
    logging.captureWarnings(False)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_json_lines_have_time_level_event_and_fields() -> None:
    stream = io.StringIO()
    logs.configure("auto", "info", stream).info("model loaded", extra={"model": "iris", "version": 3})
    line = json.loads(stream.getvalue())
    assert line.pop("time").endswith("+00:00")
    assert line == {"level": "info", "event": "model loaded", "model": "iris", "version": 3}


def test_console_lines_are_for_people() -> None:
    stream = Terminal()
    logs.configure("auto", "info", stream).warning(
        "request failed", extra={"code": "NOT_FOUND", "reason": "no x"}
    )
    assert stream.getvalue()[8:] == ' warning request failed  code=NOT_FOUND reason="no x"\n'


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize("hostile", ["a\nb", "a\r\n{}", "\x1b[2J", '" forged="1', "\u2028", "x" * 1000])
def test_no_value_can_break_or_forge_a_line(form: str, hostile: str) -> None:
    stream = io.StringIO()
    logs.configure(form, "info", stream).info("event", extra={"request_id": hostile})  # type: ignore[arg-type]
    (line,) = stream.getvalue().splitlines()
    if form == "json":
        assert json.loads(line)["request_id"] == hostile
    else:
        _, _, shown = line.partition("request_id=")
        assert shown == hostile or json.loads(shown) == hostile
        assert line.isprintable()


def test_a_bug_brings_its_trace_on_the_same_json_line() -> None:
    stream = io.StringIO()
    logger = logs.configure("json", "info", stream)
    try:
        raise ValueError("broken")
    except ValueError as error:
        logger.error("request failed", exc_info=error)
    (line,) = stream.getvalue().splitlines()
    assert "ValueError: broken" in json.loads(line)["trace"]


def test_the_level_holds_for_us_and_libraries_warn_only() -> None:
    stream = io.StringIO()
    logger = logs.configure("json", "error", stream)
    logger.warning("quiet")
    logging.getLogger("some.library").info("chatter")
    assert stream.getvalue() == ""
    logging.getLogger("some.library").warning("serious")
    line = json.loads(stream.getvalue())
    assert line.pop("time")
    assert line == {
        "level": "warning",
        "event": "library message",
        "logger": "some.library",
        "message": "serious",
    }


def test_warnings_of_libraries_become_lines() -> None:
    stream = io.StringIO()
    logs.configure("json", "info", stream)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)
        logging.captureWarnings(True)
        warnings.warn("two\nlines", UserWarning, stacklevel=1)
    (line,) = stream.getvalue().splitlines()
    assert "UserWarning: two" in json.loads(line)["message"]


def test_a_librarys_fields_do_not_take_the_place_of_ours() -> None:
    stream = io.StringIO()
    logs.configure("json", "info", stream)
    logging.getLogger("some.library").error("oh", extra={"event": "x", "level": 7, "time": 0, "more": 1})
    line = json.loads(stream.getvalue())
    assert (line["event"], line["level"], line["more"]) == ("library message", "error", 1)


def test_what_nothing_catches_is_a_line_too() -> None:
    program = """
import gc, sys, threading
from dropserve_server import logs
logs.configure("json", "info")
logs.catch_uncaught()
class Finalised:
    def __del__(self):
        raise ValueError("finaliser")
Finalised()
thread = threading.Thread(target=lambda: 1 / 0, name="worker")
thread.start()
thread.join()
raise KeyError("main")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert done.returncode == 1
    assert [(line["level"], line["event"]) for line in lines] == [("critical", "uncaught exception")] * 3
    assert [line["trace"].splitlines()[-1] for line in lines] == [
        "ValueError: finaliser",
        "ZeroDivisionError: division by zero",
        "KeyError: 'main'",
    ]
    assert lines[1]["where"] == "worker"
