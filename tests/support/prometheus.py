"""A real Prometheus: Debian's, where it is on the PATH."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

TIMEOUT = 60.0

Found = TypeVar("Found")


def program(name: str) -> str:
    """The path of `prometheus` or `promtool`; skips the test where there is none."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"there is no {name} on the PATH (Debian's package prometheus; .ci/run fetches it)")
    return path


class Prometheus:
    """A running one, and its HTTP API."""

    def __init__(self, command: list[str]) -> None:
        self._lines: list[str] = []
        self._news = threading.Condition()
        self._ended = False
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_until_ready(self) -> None:
        def address() -> str | None:
            listening = (re.search(r'"Listening on" address=(\S+)', line) for line in self._lines)
            return next((match[1] for match in listening if match), None)

        with self._news:
            self._news.wait_for(lambda: self._ended or address(), TIMEOUT)
            found = address()
        assert found, f"Prometheus does not listen: {self._lines}"
        self.root = f"http://{found}"
        self.until(self._is_ready)

    def get(self, path: str, **parameters: str) -> Any:
        """The data that the HTTP API answers with."""
        url = f"{self.root}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=TIMEOUT) as page:
            answer = json.load(page)
        assert answer["status"] == "success", answer
        return answer["data"]

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """What an expression gives now: labels, and a value."""
        found = self.get("query", query=expression)["result"]
        return [(sample["metric"], float(sample["value"][1])) for sample in found]

    def until(self, ask: Callable[[], Found]) -> Found:
        """What `ask` finds, once it finds something."""
        deadline = time.monotonic() + TIMEOUT
        while not (found := ask()):
            assert time.monotonic() < deadline, f"still {found!r}; {self._lines[-5:]}"
            time.sleep(0.05)
        return found

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.process.wait()
        self._reader.join(TIMEOUT)

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.root}/-/ready", timeout=TIMEOUT) as page:
                return bool(page.status == 200)
        except urllib.error.HTTPError as error:
            error.close()
            return False

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            for line in lines:
                with self._news:
                    self._lines.append(line)
                    self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()


@contextmanager
def prometheus(config: Path, data: Path) -> Iterator[Prometheus]:
    """Run one on a free loopback port for the time of the context."""
    command = [program("prometheus"), f"--config.file={config}", f"--storage.tsdb.path={data}"]
    server = Prometheus([*command, "--web.listen-address=127.0.0.1:0"])
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.stop()
