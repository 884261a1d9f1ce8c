"""Which engine a model gets, and that CUDA's failures never reach an answer."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dropserve_models.inference.device import choice
from dropserve_models.inference.device.choice import AnyEngine, make_engine
from dropserve_models.inference.device.engine import DeviceEngine
from dropserve_models.inference.engine import Engine
from dropserve_models.prediction import MonteCarloOptions
from support.devices import CPU
from support.engines import Array, blueprint_of, model_of
from support.onnx_models import mlp

DATA = mlp([6, 8, 2], [0.2, 0.5], last="Softmax").onnx()
FEATURES: Array = np.ones((4, 6), np.float32)


def chosen(provider: str, memory_bytes: int = 2**28) -> AnyEngine:
    blueprint = blueprint_of(DATA)
    assert blueprint.program is not None
    return make_engine(
        blueprint.program, blueprint.prefix, blueprint.opening, True, memory_bytes, provider, FEATURES
    )


def test_on_the_cpu_it_is_the_engine_of_the_cpu(caplog: pytest.LogCaptureFixture) -> None:
    assert isinstance(chosen("CPUExecutionProvider"), Engine)
    assert not caplog.records
    model = model_of(DATA)
    assert model.monte_carlo_device is None, "not known before it is prepared"
    model.prepare_monte_carlo()
    assert model.monte_carlo_device == "cpu"


def test_with_cuda_in_the_runtime_alone_the_log_says_so(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert isinstance(chosen("CUDAExecutionProvider"), Engine)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.message.startswith("Monte Carlo runs on the CPU, deterministic requests on CUDA: torch ")
    assert record.message.endswith("finds no CUDA device")


def test_with_cuda_it_is_tried_out_first(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(choice, "_DEVICE", CPU)
    engine = chosen("CUDAExecutionProvider")
    assert isinstance(engine, DeviceEngine)
    assert not caplog.records

    assert isinstance(chosen("CUDAExecutionProvider", memory_bytes=10_000), Engine)
    assert "a request may use 10,000" in caplog.records[0].message
    caplog.clear()

    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nGPU 0 has ...")

    monkeypatch.setattr(DeviceEngine, "warm_up", fail)
    refuge = chosen("CUDAExecutionProvider")
    assert isinstance(refuge, Engine)
    (record,) = caplog.records
    assert record.message.endswith("on CUDA: CUDA out of memory. Tried to allocate 20.00 MiB.")
    ours, theirs = (each.run(FEATURES, MonteCarloOptions(20, 1)).mean for each in (engine, refuge))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
