"""Monte Carlo is computed in blocks: what a request takes is bounded by the setting, never by its passes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.onnx_models import mlp, publish

MEBIBYTE = 2**20
LIMIT = 64 * MEBIBYTE

MEASURED = """
import json, resource, sys
import numpy as np
from dropserve_models import load
from dropserve_models.prediction import MonteCarloOptions

def peak():
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

folder, limit, rows, options = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), json.loads(sys.argv[4])
loaded = load(folder, device="cpu", threads=1, memory_bytes=limit)
x = np.random.default_rng(0).normal(size=(rows, 50)).astype(np.float32)
loaded.run(x[:16], MonteCarloOptions(passes=10))
before = peak()
answer = loaded.run(x, MonteCarloOptions(seed=1, **options))
arrays = [getattr(answer, name) for name in answer.__slots__]
taken = sum(array.nbytes for array in arrays if isinstance(array, np.ndarray))
print(json.dumps({"grown": peak() - before, "own": x.nbytes + taken}))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="measured by getrusage")
@pytest.mark.parametrize(
    ("rows", "options"),
    [
        (12_000, {"passes": 100}),
        (12_000, {"passes": 100, "masks": "independent"}),
        (64, {"passes": 20_000, "quantiles": [0.05, 0.95]}),
        (16, {"passes": 40_000, "quantiles": [0.5], "return_samples": True}),
    ],
    ids=["rows", "rows, independent", "quantiles", "samples"],
)
def test_a_request_stays_within_its_limit(tmp_path: Path, rows: int, options: dict[str, object]) -> None:
    """The repeated batch would take 12,000 x 100 x 64 x 4 bytes, 300 MB, a layer."""
    folder = publish(tmp_path, "model", mlp([50, 64, 64, 2], [0.1, 0.2, 0.5]).onnx())
    ran = subprocess.run(
        [sys.executable, "-c", MEASURED, str(folder), str(LIMIT), str(rows), json.dumps(options)],
        capture_output=True, text=True, timeout=120, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert found["grown"] < LIMIT + found["own"] + 16 * MEBIBYTE, f"{found['grown'] / MEBIBYTE:.0f} MiB"
