"""Networks and requests for both engines, and what it means that they answer alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from functools import cache

import numpy as np
import onnx

from dropserve_models.inference.device.engine import DeviceEngine
from dropserve_models.inference.engine import Engine
from dropserve_models.prediction import MonteCarloOptions, Prediction
from support.devices import device_engine_of
from support.engines import Array, engine_of
from support.onnx_models import constant, mlp, model, node

ROWS = 70
UNITS = 9


def branched(nodes: Sequence[onnx.NodeProto]) -> bytes:
    rng = np.random.default_rng(3)
    constants = [
        constant("half", 0.5), constant("third", 0.3), constant("scale", rng.normal(size=UNITS)),
        constant("w", rng.normal(size=(UNITS, UNITS)) / 3.0),
        constant("places", [17, 0, 3, 4, 5, 9, 10, 2, 2], np.int64),
        constant("v", rng.normal(size=(UNITS, UNITS)) / 3.0),
    ]  # fmt: skip
    made = {out for each in nodes for out in each.output}
    outputs = [out for out in ("prediction", "noise_variance") if out in made]
    return model(list(nodes), constants, UNITS, dict.fromkeys(outputs, UNITS))


D, E = node("Dropout", "features half", "d"), node("Dropout", "h third", "e")
NETWORKS = {
    "30-64-64-2": (mlp([30, 64, 64, 2], [0.0, 0.2, 0.5], last="Softmax").onnx(), 30),
    "10-100-100-1": (mlp([10, 100, 100, 1], [0.0, 0.5, 0.5]).onnx(), 10),
    "6-12-270-270-3": (mlp([6, 12, 270, 270, 3], [0.0, 0.1, 0.5, 0.3], last="Softmax").onnx(), 6),
    "9-20-1": (mlp([9, 20, 1], [0.0, 0.3], last="Sigmoid").onnx(), 9),
    "9-20-1, exact": (mlp([9, 20, 1], [0.0, 0.3]).onnx(), 9),
    "7-20-1, input dropout": (mlp([7, 20, 1], [0.1, 0.3], last="Sigmoid").onnx(), 7),
    "9-40-30-2, input dropout": (mlp([9, 40, 30, 2], [0.1, 0.2, 0.5]).onnx(), 9),
    "residual": (
        branched([
            node("Tanh", "features", "t"), node("Dropout", "t half", "d"), node("MatMul", "d w", "a"),
            node("Relu", "a", "h"), E, node("MatMul", "e v", "b"), node("Add", "b features", "s"),
            node("Sub", "s t", "m"), node("Mul", "scale m", "prediction"),
        ]),
        UNITS,
    ),
    "noise by another dropout": (
        branched([
            D, node("MatMul", "d w", "a"), node("Identity", "a", "prediction"), node("Tanh", "a", "h"), E,
            node("MatMul", "e v", "n"), node("Softplus", "n", "noise_variance"),
        ]),
        UNITS,
    ),
    "noise without dropout": (
        branched([D, node("MatMul", "d w", "prediction"), node("Softplus", "features", "noise_variance")]),
        UNITS,
    ),
    "logarithm, joined and split": (
        branched([
            D, node("MatMul", "d w", "a"), node("Concat", "a features", "c", axis=1),
            node("Gather", "c places", "h", axis=1), E, node("MatMul", "e v", "b"), node("Add", "b d", "r"),
            node("LogSoftmax", "r", "prediction", axis=1),
        ]),
        UNITS,
    ),
}  # fmt: skip
OPTIONS = {
    "integrated": MonteCarloOptions(100, 3),
    "a remainder": MonteCarloOptions(37, 4),
    "samples": MonteCarloOptions(37, 4, (0.1, 0.5), return_samples=True),
    "quantiles": MonteCarloOptions(23, 2**64 - 1, (0.0, 0.31, 1.0)),
    "independent": MonteCarloOptions(130, 5, masks="independent"),
    "one pass": MonteCarloOptions(1, 6),
    "three passes": MonteCarloOptions(3, 6),
    "many": MonteCarloOptions(317, 7),
}


@cache
def engine(name: str) -> Engine:
    return engine_of(NETWORKS[name][0])


@cache
def device_engine(name: str) -> DeviceEngine:
    return device_engine_of(NETWORKS[name][0])


@cache
def features(name: str) -> Array:
    return np.random.default_rng(0).normal(size=(ROWS, NETWORKS[name][1])).astype(np.float32)


def assert_close(ours: Prediction, theirs: Prediction) -> None:
    """Every field, to the accuracy of float32 of its largest value."""
    for field in fields(Prediction):
        found, expected = getattr(ours, field.name), getattr(theirs, field.name)
        if not isinstance(expected, np.ndarray):
            assert found == expected, field.name
            continue
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape), field.name
        assert found.flags.c_contiguous, field.name
        largest = float(np.abs(expected).max())
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * largest + 2e-7, err_msg=field.name)


def same_bytes(ours: Prediction, theirs: Prediction, rows: slice | list[int] = slice(None)) -> bool:
    return all(
        getattr(ours, name).tobytes() == getattr(theirs, name)[rows].tobytes()
        for name in ("mean", "variance", "standard_error", "std_standard_error", "predictive_entropy")
        if getattr(theirs, name) is not None
    )
