"""Models and engines straight from the bytes of an ONNX file."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from itertools import count
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from dropserve_models.artifact import Artifact
from dropserve_models.inference.bank import MaskBank, MaskSet
from dropserve_models.inference.blueprint import Blueprint, draw_up
from dropserve_models.inference.deterministic import Device
from dropserve_models.inference.engine import Engine
from dropserve_models.inference.small.requests import SmallRequests
from dropserve_models.model import Model
from dropserve_models.prediction import DEFAULT_MEMORY_BYTES

Array = NDArray[np.float32]


def blueprint_of(data: bytes, device: Device = "cpu", threads: int = 1) -> Blueprint:
    """What `load` reads off an artifact that is model.onnx alone."""
    return draw_up(Artifact(Path("memory/model/1"), "model", 1, data, None), device, threads)


def model_of(data: bytes, memory_bytes: int = DEFAULT_MEMORY_BYTES) -> Model:
    """As `load` of a folder with these bytes."""
    return Model(blueprint_of(data), memory_bytes)


def engine_of(data: bytes, memory_bytes: int = DEFAULT_MEMORY_BYTES) -> Engine:
    """The Monte Carlo engine of a model that has one."""
    blueprint = blueprint_of(data)
    assert blueprint.program is not None, blueprint.monte_carlo_unavailable
    classifier = blueprint.info.task != "regression"
    return Engine(blueprint.program, blueprint.prefix, blueprint.opening, classifier, memory_bytes)


S = TypeVar("S", bound=MaskSet)


class NumberedMasks(MaskBank):
    """Keeps nothing: the masks of every request are drawn, from seeds 0, 1, 2 and so on.

    Attributes
    ----------
    last : MaskSet or None
        Those drawn last without a seed.
    """

    def __init__(self) -> None:
        super().__init__(0)
        self._numbers = count()
        self.last: MaskSet | None = None

    def unseeded_apart(self, kind: Hashable, draw: Callable[[int], S], requests: int) -> list[S]:
        drawn = [draw(next(self._numbers)) for _ in range(requests)]
        self.last = drawn[-1]
        return drawn


def small_of(data: bytes, features: Array) -> SmallRequests:
    """What answers small requests, each with masks of its own; `features` are to try it with."""
    engine = engine_of(data)
    engine.prepare_small(features)
    assert engine.small is not None
    engine.small.bank = NumberedMasks()
    return engine.small


def onnx_runtime(data: bytes, features: Array) -> list[Array]:
    """Every output of the graph, by a session of its own."""
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    outputs: list[Array] = session.run(None, {session.get_inputs()[0].name: features})
    return outputs
