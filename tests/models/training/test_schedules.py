from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from dropserve_models.training.config import TrainingConfig
from dropserve_models.training.schedules import Schedule


def rates(epochs: int, steps_per_epoch: int, **options: Any) -> list[float]:
    config = TrainingConfig(epochs=epochs, learning_rate=0.5, **options)
    schedule = Schedule([config], steps_per_epoch)
    return [schedule.rates(step).item() for step in range(epochs * steps_per_epoch)]


def test_onecycle_is_that_of_torch() -> None:
    total = 100 * 20
    parameter = torch.zeros(1, requires_grad=True)
    optimiser = torch.optim.SGD([parameter], lr=1.0)
    reference = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=0.5, total_steps=total, cycle_momentum=False
    )
    expected = [optimiser.param_groups[0]["lr"]]
    for _ in range(total - 1):
        optimiser.step()
        reference.step()
        expected.append(optimiser.param_groups[0]["lr"])
    found = rates(100, 20, schedule="onecycle")
    # torch's peak is one step before 30 % of the run, ours at 30 %.
    assert found == pytest.approx(expected, abs=0.002 * 0.5)
    assert found[0] == pytest.approx(0.5 / 25)
    assert max(found) == pytest.approx(0.5, rel=1e-5)
    assert found[-1] == pytest.approx(0.5 / 25e4)


def test_constant() -> None:
    assert rates(2, 3, schedule="constant") == [0.5] * 6


def test_cosine() -> None:
    assert rates(2, 2, schedule="cosine") == pytest.approx(
        [0.5 * (1 + math.cos(math.pi * step / 4)) / 2 for step in range(4)]
    )


def test_step() -> None:
    found = rates(5, 2, schedule="step", decay=0.1, decay_epochs=2)
    assert found == pytest.approx([0.5] * 4 + [0.05] * 4 + [0.005] * 2)


def test_exponential() -> None:
    found = rates(4, 2, schedule="exponential", decay=0.25, decay_epochs=1)
    assert found == pytest.approx([0.5 * 0.5**step for step in range(8)])


def test_plateau_follows_the_validation_loss() -> None:
    config = TrainingConfig(learning_rate=1.0, schedule="plateau", decay=0.5, decay_epochs=2)
    schedule = Schedule([config], 1)
    found = []
    for loss in (3.0, 2.0, 2.0, 2.5, 1.9, 1.9, 1.9, 1.9, 1.9):
        schedule.observe(np.array([loss]))
        found.append(schedule.rates(0).item())
    assert found == [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.125]


def test_a_single_step() -> None:
    for schedule in ("onecycle", "cosine", "constant", "step", "exponential", "plateau"):
        (rate,) = rates(1, 1, schedule=schedule)
        assert 0 < rate <= 0.5


def test_each_member_has_its_own_rate_and_plateau() -> None:
    configs = [
        TrainingConfig(learning_rate=rate, schedule="plateau", decay=0.5, decay_epochs=1)
        for rate in (1.0, 3.0)
    ]
    schedule = Schedule(configs, 1)
    assert schedule.rates(0).tolist() == [[1.0], [3.0]]
    schedule.observe(np.array([2.0, 2.0]))
    schedule.observe(np.array([1.0, 2.0]))
    assert schedule.rates(0).tolist() == [[1.0], [1.5]]
    again = Schedule(configs, 1)
    again.restore(schedule.state())
    for one in (schedule, again):
        one.observe(np.array([1.0, 2.0]))
        assert one.rates(0).tolist() == [[0.5], [0.75]]
