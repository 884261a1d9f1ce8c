"""Requests that a device has no room for are refused; what fits is answered."""

from __future__ import annotations

import pytest
import torch

from dropserve_models.errors import MemoryLimitError
from dropserve_models.inference.device.runner import DeviceRunner
from dropserve_models.prediction import MonteCarloOptions
from support.device_cases import (
    NETWORKS,
    OPTIONS,
    assert_close,
    device_engine,
    engine,
    features,
    same_bytes,
)
from support.devices import device_engine_of


@pytest.mark.parametrize(
    "options",
    [OPTIONS["integrated"], MonteCarloOptions(2000, 1, (0.5,), return_samples=True)],
    ids=["moments", "samples"],
)
def test_a_request_that_does_not_fit_is_refused(options: MonteCarloOptions) -> None:
    name = "30-64-64-2"
    refusals: list[str] = []
    answered = 0
    for megabytes in (1, 2, 4, 8, 16, 32, 64, 128):
        ours = device_engine_of(NETWORKS[name][0], memory_bytes=megabytes * 2**20)
        try:
            answer = ours.run(features(name)[:2], options)
        except MemoryLimitError as error:
            refusals.append(str(error))
            assert not answered, "what fits, fits with more memory"
        else:
            answered += 1
            assert_close(answer, engine(name).run(features(name)[:2], options))
    assert answered
    assert refusals
    assert "a request may use 1,048,576" in refusals[0]


def test_a_device_without_room_refuses_the_request_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nOf the allocated ...")

    name, options = "30-64-64-2", OPTIONS["integrated"]
    ours = device_engine_of(NETWORKS[name][0])
    with monkeypatch.context() as patch:
        patch.setattr(DeviceRunner, "run", fail)
        with pytest.raises(MemoryLimitError, match=r"too little memory left .* Tried to allocate 2.00 GiB.$"):
            ours.run(features(name), options)
    assert same_bytes(ours.run(features(name), options), device_engine(name).run(features(name), options))


def test_samples_alone_beyond_the_limit_are_refused() -> None:
    with pytest.raises(MemoryLimitError, match="samples of 70 rows"):
        device_engine("30-64-64-2").run(
            features("30-64-64-2"), MonteCarloOptions(1_000_000, return_samples=True)
        )
