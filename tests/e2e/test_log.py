"""The log of a server's whole life: JSON lines, with the fields that the documentation names."""

from __future__ import annotations

import re
from pathlib import Path

import grpc
import numpy as np

from dropserve.v1.prediction_pb2 import MonteCarlo
from support.example_repository import rows_for
from support.prediction_client import Asker, request
from support.server_process import server_process

ROOT = Path(__file__).parents[2]
REFUSED = 20
ALWAYS = {"time", "level", "event"}


def documented_fields() -> dict[str, set[str]]:
    """The fields of each event, as docs/operations.md has them."""
    rows = re.findall(
        r"^\| `([a-z ]+)` \| .*? \| (.*) \|$", (ROOT / "docs/operations.md").read_text("utf-8"), re.MULTILINE
    )
    return {event: set(re.findall(r"`(\w+)`", fields)) for event, fields in rows}


def test_every_line_is_an_object_with_documented_fields(repository: Path) -> None:
    rows = rows_for("targets", 2)
    options = ("--log-requests", "1", "--log-failures-per-second", "1")
    variables = {"DROPSERVE_MAX_ROW": "5", "OTEL_TRACES_EXPORTER": "nothing"}
    with server_process(repository, *options, variables=variables) as server:
        with grpc.insecure_channel(server.address) as channel:
            ask = Asker(channel)
            ask.predict("targets", rows, request_id="a")
            ask.predict("targets", rows, MonteCarlo(passes=20))
            for _ in range(REFUSED):
                ask.refused(request("nothing", rows))
            ask.refused(request("targets", np.full((1, 4), np.nan, np.float32), request_id="b"))
        assert server.stop() == 0
    assert server.other_lines == []

    fields = documented_fields()
    for line in server.log:
        assert list(line)[:3] == ["time", "level", "event"]
        assert line.keys() - ALWAYS <= fields[line["event"]], line
    logged = {line["event"] for line in server.log}
    assert logged == {
        "environment variable ignored",
        "no traces",
        "listening",
        "model loaded",
        "model failed to load",
        "no monte carlo",
        "serving",
        "request answered",
        "request failed",
        "more requests failed",
        "draining",
        "stopped",
    }
    assert server.wait_for("request failed", code="INVALID_ARGUMENT")["field"] == "inputs"
    not_found = [line for line in server.log if line.get("code") == "NOT_FOUND"]
    assert sum(line.get("count", 1) for line in not_found) == REFUSED
    assert server.wait_for("request answered", mode="monte_carlo")["passes"] == 20
