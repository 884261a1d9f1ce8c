"""What a scrape says after known requests."""

from __future__ import annotations

import importlib.metadata
import platform
from pathlib import Path

import grpc

from dropserve.v1.prediction_pb2 import MonteCarlo
from support.example_repository import rows_for
from support.prediction_client import Asker, request
from support.server_process import server_process


def test_requests_rows_passes_and_models_are_counted(repository: Path) -> None:
    rows = rows_for("targets", 3)
    with server_process(repository) as server, grpc.insecure_channel(server.address) as channel:
        ask = Asker(channel)
        for _ in range(4):
            ask.predict("targets", rows)
        for _ in range(2):
            ask.predict("targets", rows, MonteCarlo(passes=30))
        list(ask.stub.PredictStream(iter([request("targets", rows), request("nothing", rows)]), timeout=60))
        ask.refused(request("targets", rows, MonteCarlo(passes=10**6)))
        ask.refused(request("wave", rows, MonteCarlo()))
        for name in ("x", "y", 'z"} 1\nforged 1'):
            ask.refused(request(name, rows))
        found = server.scrape()

    def requests(model: str, version: str, mode: str, code: str) -> float:
        labels = f'code="{code}",mode="{mode}",model="{model}",version="{version}"'
        return found[f"dropserve_requests_total{{{labels}}}"]

    assert requests("targets", "2", "deterministic", "OK") == 5
    assert requests("targets", "2", "monte_carlo", "OK") == 2
    assert requests("targets", "2", "monte_carlo", "INVALID_ARGUMENT") == 1
    assert requests("wave", "1", "monte_carlo", "FAILED_PRECONDITION") == 1
    assert requests("unknown", "unknown", "deterministic", "NOT_FOUND") == 4
    assert not any("forged" in series or "nothing" in series for series in found)

    det, bars = 'mode="deterministic",model="targets"', 'mode="monte_carlo",model="targets"'
    assert found[f"dropserve_rows_total{{{det}}}"] == 15
    assert found[f"dropserve_rows_total{{{bars}}}"] == 6
    assert found['dropserve_passes_total{model="targets"}'] == 60
    assert found[f"dropserve_request_duration_seconds_count{{{det}}}"] == 5
    assert found[f"dropserve_request_duration_seconds_count{{{bars}}}"] == 3
    for stage in ("queue", "compute"):
        assert found[f"dropserve_{stage}_duration_seconds_count{{{det}}}"] == 5
        assert found[f"dropserve_{stage}_duration_seconds_count{{{bars}}}"] == 2
    assert found[f"dropserve_compute_duration_seconds_sum{{{bars}}}"] > 0
    assert found['dropserve_predictive_std_count{model="targets"}'] == 6
    assert found['dropserve_predictive_std_sum{model="targets"}'] > 0

    assert found["dropserve_inflight_requests"] == 0
    provider = 'provider="CPUExecutionProvider"' if not Path("/dev/nvidiactl").exists() else "provider="
    assert any(
        series.startswith(f'dropserve_model_info{{model="targets",{provider}') and 'version="2"' in series
        for series in found
    )
    assert found['dropserve_model_load_failures_total{model="damaged"}'] == 1
    assert found['dropserve_model_load_duration_seconds_count{model="targets"}'] == 1
    running = f'python="{platform.python_version()}",version="{importlib.metadata.version("dropserve")}"'
    assert found[f"dropserve_build_info{{{running}}}"] == 1
    assert found["process_resident_memory_bytes"] > 0
    assert not any("_created" in series for series in found)
