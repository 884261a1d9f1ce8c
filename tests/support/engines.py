"""Models and engines straight from the bytes of an ONNX file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from dropserve_models.artifact import Artifact
from dropserve_models.inference.blueprint import Blueprint, draw_up
from dropserve_models.inference.deterministic import Device
from dropserve_models.inference.engine import Engine
from dropserve_models.model import Model
from dropserve_models.prediction import DEFAULT_MEMORY_BYTES

Array = NDArray[np.float32]


def blueprint_of(data: bytes, device: Device = "cpu") -> Blueprint:
    """What `load` reads off an artifact that is model.onnx alone."""
    return draw_up(Artifact(Path("memory/model/1"), "model", 1, data, None), device, 1)


def model_of(data: bytes, memory_bytes: int = DEFAULT_MEMORY_BYTES) -> Model:
    """As `load` of a folder with these bytes."""
    return Model(blueprint_of(data), memory_bytes)


def engine_of(data: bytes, memory_bytes: int = DEFAULT_MEMORY_BYTES) -> Engine:
    """The Monte Carlo engine of a model that has one."""
    blueprint = blueprint_of(data)
    assert blueprint.program is not None, blueprint.monte_carlo_unavailable
    return Engine(blueprint.program, blueprint.prefix, blueprint.info.task != "regression", memory_bytes)


def onnx_runtime(data: bytes, features: Array) -> list[Array]:
    """Every output of the graph, by a session of its own."""
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    outputs: list[Array] = session.run(None, {session.get_inputs()[0].name: features})
    return outputs
