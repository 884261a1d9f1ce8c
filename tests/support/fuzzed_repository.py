"""The example repository, and models whose requests can be wrong in more ways: intervals, categories."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dropserve_models.calibration import CalibrationRecord, ModeRecord
from dropserve_models.manifest import ColumnRecord, Manifest, sha256_of
from dropserve_models.publishing import publish
from support import example_repository
from support.onnx_models import Array, constant, mlp, model, node

_MODE = ModeRecord(scores=((0.1, 0.5, 1.0, 2.0),))
_CALIBRATION = CalibrationRecord(
    method="split",
    rows=4,
    guaranteed=True,
    noise_variance=(1.0,),
    deterministic=_MODE,
    monte_carlo=_MODE.model_copy(update={"passes": 20, "masks": "stratified"}),
)
COLUMNS = (
    ColumnRecord(kind="number", accepts_missing=True),
    ColumnRecord(kind="category", categories=("blue", "red", "green")),
    ColumnRecord(kind="number"),
)
"""Of the model "mixed"."""


def fill(repository: Path) -> Path:
    """Write the example repository, "calibrated" and "mixed"; return the folder."""
    example_repository.fill(repository)
    data = mlp([4, 16, 1], [0.1, 0.3], seed=6).onnx()
    _publish(repository, "calibrated", data, ("a", "b", "c", "d"), calibration=_CALIBRATION)
    _publish(repository, "mixed", _mixed(), ("size", "colour", "weight"), columns=COLUMNS)
    return repository


def mixed_rows(count: int) -> Array:
    """Rows [count, 3] for "mixed": numbers of which every other one is missing, codes, and numbers."""
    rows = np.random.default_rng(0).standard_normal((count, 3)).astype(np.float32)
    rows[::2, 0] = np.nan
    rows[:, 1] = np.arange(count) % 3
    return rows


def _publish(repository: Path, name: str, data: bytes, features: tuple[str, ...], **fields: object) -> None:
    described = {
        "task": "regression",
        "feature_names": features,
        "output_names": ("y",),
        "drop_rates": (0.1, 0.3),
        "predicts_noise": False,
        "sha256": sha256_of(data),
    }
    publish(repository, name, data, Manifest.model_validate(described | fields))


def _mixed() -> bytes:
    """A missing value counts as 0; codes are multiplied like numbers."""
    random = np.random.default_rng(8)
    nodes = [
        node("IsNaN", "features", "missing"),
        node("Where", "missing none features", "given"),
        node("Dropout", "given tenth", "d1"),
        node("MatMul", "d1 first", "m1"),
        node("Relu", "m1", "r1"),
        node("Dropout", "r1 third", "d2"),
        node("MatMul", "d2 second", "prediction"),
    ]
    constants = [
        constant("none", 0.0), constant("tenth", 0.1), constant("third", 0.3),
        constant("first", random.normal(size=(3, 16))), constant("second", random.normal(size=(16, 1))),
    ]  # fmt: skip
    return model(nodes, constants, 3, 1)
