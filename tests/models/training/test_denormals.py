from __future__ import annotations

import numpy as np
import pytest
import torch

from dropserve_models.training.config import TrainingConfig
from dropserve_models.training.denormals import flushed_denormals
from dropserve_models.training.fit import fit
from dropserve_models.training.fleet import Examples, Fleet, Member
from dropserve_models.training.losses import SquaredError

SMALLEST = torch.full((), torch.finfo(torch.float32).tiny)


def flushes() -> bool:
    return SMALLEST.mul(0.25).item() == 0.0


def test_denormal_numbers_are_zero_within_and_the_former_mode_comes_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)

    def fail() -> None:
        with flushed_denormals():
            assert flushes()
            with flushed_denormals():
                assert flushes()
            assert flushes()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert not flushes()


def test_several_threads_compute_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    with flushed_denormals():
        assert not flushes()


def test_training_does_not_go_on_with_denormal_averages(monkeypatch: pytest.MonkeyPatch) -> None:
    """The squares of gradients of 1e-20 and less are such numbers."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    fleets: list[Fleet] = []
    make = Fleet.__init__

    def kept(fleet: Fleet, *arguments: object) -> None:
        make(fleet, *arguments)  # type: ignore[arg-type]
        fleets.append(fleet)

    monkeypatch.setattr(Fleet, "__init__", kept)
    x = torch.zeros(4, 1)
    y = torch.full((4, 1), 1e-20)
    config = TrainingConfig(hidden=(), hidden_drop=(0.0,), epochs=3, batch_size=4, validation=0.0, loss="mse")
    member = Member(config, np.arange(4), np.arange(0), np.random.SeedSequence(0))
    fit([member], Examples(x, y), SquaredError(1))
    state = fleets[0].state()
    found = np.abs(np.concatenate([state["mean"].ravel(), state["square"].ravel()]))
    assert not ((found > 0.0) & (found < np.finfo(np.float32).tiny)).any()
