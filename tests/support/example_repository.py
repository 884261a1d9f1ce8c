"""A repository of small networks that no trainer of ours made: two styles, two versions, and odd ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from support.onnx_models import Array, Mlp, mlp, model, publish

NETWORKS: dict[str, Mlp] = {
    "classes": mlp([30, 64, 64, 3], [0.0, 0.2, 0.5], last="Softmax", seed=1),
    "binary": mlp([5, 16, 1], [0.0, 0.4], last="Sigmoid", seed=2),
    "targets": mlp([4, 32, 2], [0.1, 0.3], seed=3),
    "plain": mlp([4, 8, 1], [0.0, 0.0], seed=5),
}
OLD_TARGETS = mlp([4, 32, 2], [0.1, 0.3], seed=4)
"""Version 1 of "targets"; the others have one version."""


def fill(repository: Path) -> Path:
    """Write the networks, "wave" with an unsupported operation, and "damaged"; return the folder."""
    publish(repository, "classes", NETWORKS["classes"].onnx())
    publish(repository, "binary", NETWORKS["binary"].onnx(gemm=True))
    publish(repository, "targets", OLD_TARGETS.onnx(gemm=True), version=1)
    publish(repository, "targets", NETWORKS["targets"].onnx(), version=2)
    publish(repository, "plain", NETWORKS["plain"].onnx())
    publish(repository, "wave", _wave())
    publish(repository, "damaged", b"this is no ONNX model")
    return repository


def rows_for(name: str, count: int, seed: int = 0) -> Array:
    """Features [count, features] for one of NETWORKS."""
    width = NETWORKS[name].weights[0].shape[0]
    return np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)


def expected(network: Mlp, rows: Array) -> NDArray[np.float64]:
    """What a deterministic answer's mean must be, [rows, outputs]."""
    output = network.forward(rows, [None] * len(network.weights))
    return np.hstack([1 - output, output]) if network.last == "Sigmoid" else output


def _wave() -> bytes:
    """An operation after the Dropout that the Monte Carlo engine does not know: Sin."""
    constants = {
        "ratio": np.float32(0.5),
        "training": np.bool_(False),
        "weight": np.linspace(-1, 1, 8, dtype=np.float32).reshape(4, 2),
    }
    nodes = [
        helper.make_node("Dropout", ["features", "ratio", "training"], ["dropped"], name="dropout"),
        helper.make_node("Sin", ["dropped"], ["wave"], name="wave"),
        helper.make_node("MatMul", ["wave", "weight"], ["prediction"], name="head"),
    ]
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    return model(nodes, initializers, 4, 2)
