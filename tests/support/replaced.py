"""Versions of a model that replace each other, each another network."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from dropserve_models.manifest import Manifest, sha256_of
from dropserve_models.publishing import publish as publish_next
from support.onnx_models import Mlp, mlp
from support.prediction_client import Asker, array_of
from support.server_process import TIMEOUT

SIZES, RATES = [6, 32, 2], [0.1, 0.3]
ROWS = np.random.default_rng(0).standard_normal((3, 6)).astype(np.float32)


def network(version: int) -> Mlp:
    """Every version is another network."""
    return mlp(SIZES, RATES, seed=version)


def expected(version: int) -> np.ndarray:
    return network(version).forward(ROWS, [None] * len(RATES))


def publish_version(repository: Path, version: int, name: str = "net") -> Path:
    """As dropserve publishes: whole, with a manifest."""
    data = network(version).onnx()
    manifest = Manifest(
        task="regression",
        feature_names=tuple("abcdef"),
        output_names=("y", "z"),
        drop_rates=(0.1, 0.3),
        predicts_noise=False,
        sha256=sha256_of(data),
    )
    folder = publish_next(repository, name, data, manifest)
    assert folder.name == str(version)
    return folder


def until_version(ask: Asker, version: int) -> None:
    deadline = time.monotonic() + TIMEOUT
    while (answer := ask.predict("net", ROWS)).version != str(version):
        assert time.monotonic() < deadline, answer.version
        time.sleep(0.01)
    np.testing.assert_allclose(array_of(answer.mean), expected(version), rtol=1e-4, atol=1e-5)
