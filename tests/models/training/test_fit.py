from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from dropserve_models.training.config import TrainingConfig
from dropserve_models.training.fit import Epoch, History, fit
from dropserve_models.training.fleet import Examples, Member
from dropserve_models.training.losses import CrossEntropy, GaussianNoise, Objective, SquaredError
from dropserve_models.training.network import Network


class Rows(NamedTuple):
    x: Tensor
    y: Tensor


def line(rows: int, seed: int = 0, noise: float = 0.1) -> Rows:
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows, 3)).astype(np.float32)
    y = x @ np.array([[0.6], [-0.6], [0.4]], np.float32) + noise * random.normal(size=(rows, 1))
    return Rows(torch.from_numpy(x), torch.from_numpy(y.astype(np.float32)))


def trained(
    objective: Objective, training: Rows, validation: Rows, seed: int = 0, **options: Any
) -> tuple[Network, History]:
    defaults: dict[str, Any] = {"hidden": (16,), "epochs": 20, "batch_size": 16, "learning_rate": 0.03}
    config = TrainingConfig(**(defaults | options))
    examples = Examples(torch.cat([training.x, validation.x]), torch.cat([training.y, validation.y]))
    rows = np.arange(len(examples.x))
    member = Member(config, rows[: len(training.x)], rows[len(training.x) :], np.random.SeedSequence(seed))
    found = fit([member], examples, objective)
    return found.network, found.histories[0]


def best_score(history: History) -> float:
    assert history.best is not None
    assert history.best.score is not None
    return history.best.score


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
@pytest.mark.parametrize("schedule", ["onecycle", "cosine", "exponential", "step", "plateau", "constant"])
def test_every_optimizer_and_schedule_learns_a_line(optimizer: str, schedule: str) -> None:
    _, history = trained(
        SquaredError(1), line(200), line(100, 1), optimizer=optimizer, schedule=schedule, decay_epochs=10
    )
    assert best_score(history) > 0.9
    assert history.epochs[-1].loss < 0.5 * history.epochs[0].loss


def test_the_noise_is_learned_where_it_is() -> None:
    random = np.random.default_rng(0)
    x = random.uniform(-1, 1, (2000, 1)).astype(np.float32)
    y = (0.1 + (x > 0)) * random.normal(size=(2000, 1))
    rows = Rows(torch.from_numpy(x), torch.from_numpy(y.astype(np.float32)))
    network, _ = trained(
        GaussianNoise(1), rows, rows, hidden=(32,), hidden_drop=(0.0,), epochs=60, batch_size=200
    )
    outputs = network.evaluate(torch.tensor([[[-0.6], [0.6]]]))
    _, log_variance = GaussianNoise(1).split(outputs)
    assert log_variance.div(2).exp().flatten().tolist() == pytest.approx([0.1, 1.1], rel=0.25)


def test_classes_are_learned() -> None:
    rows = line(300)
    classes = Rows(rows.x, (rows.y[:, 0] > 0).long() + (rows.y[:, 0] > 1).long())
    _, history = trained(CrossEntropy(3), classes, classes)
    assert best_score(history) > 0.9


def test_the_same_seed_gives_the_same_weights_bit_for_bit() -> None:
    options: dict[str, Any] = {"hidden": (32, 32), "hidden_drop": (0.5,), "input_drop": 0.2, "epochs": 5}
    runs = [trained(GaussianNoise(1), line(500), line(50, 1), seed, **options) for seed in (7, 7, 8)]
    weights = [network.parameters for network, _ in runs]
    assert torch.equal(weights[0], weights[1])
    assert runs[0][1] == runs[1][1]
    assert not torch.equal(weights[0], weights[2])


class Recorded(SquaredError):
    """Validation losses as scripted; remembers the outputs it was shown."""

    def __init__(self, losses: list[float]) -> None:
        super().__init__(1)
        self.losses = losses
        self.shown: list[Tensor] = []

    def gradient(self, outputs: Tensor, targets: Tensor, *rest: Tensor | None) -> tuple[Tensor, Tensor]:
        return SquaredError(1).gradient(outputs, targets, *rest)

    def loss(self, outputs: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
        self.shown.append(outputs.clone())
        return torch.tensor([self.losses[len(self.shown) - 1]])


def test_early_stopping_restores_the_best_weights() -> None:
    objective = Recorded([5.0, 3.0, 4.0, 2.0, 2.0, 6.0, 2.5, 0.0])
    validation = line(20, 1)
    network, history = trained(objective, line(100), validation, epochs=8, patience=3)
    assert [epoch.number for epoch in history.epochs] == [1, 2, 3, 4, 5, 6, 7]  # three without a better one
    assert history.best == history.epochs[3]  # the first of equals
    assert torch.equal(network.evaluate(validation.x[None]), objective.shown[3])
    assert not torch.equal(objective.shown[6], objective.shown[3])


def test_without_early_stop_the_best_weights_are_restored_too() -> None:
    objective = Recorded([2.0, 1.0, 3.0])
    validation = line(20, 1)
    network, history = trained(objective, line(100), validation, epochs=3, patience=50)
    assert len(history.epochs) == 3
    assert torch.equal(network.evaluate(validation.x[None]), objective.shown[1])


def test_max_norm_holds_after_every_step() -> None:
    network, _ = trained(SquaredError(1), line(200), line(50, 1), max_norm=0.3, learning_rate=0.1)
    lengths = torch.linalg.vector_norm(network.weights[0], dim=2)
    assert lengths.max().item() <= 0.3 * (1 + 1e-6)


def test_dropout_is_on_in_training_and_off_in_validation() -> None:
    rows = line(400, noise=0.0)
    _, history = trained(SquaredError(1), rows, rows, hidden_drop=(0.5,), epochs=30)
    last = history.epochs[-1]
    assert last.validation_loss is not None
    assert last.loss > 2 * last.validation_loss


def test_batches_are_even_and_cover_every_row() -> None:
    class Counting(SquaredError):
        sizes: list[int] = []  # noqa: RUF012  # of this test alone

        def gradient(self, outputs: Tensor, targets: Tensor, *rest: Tensor | None) -> tuple[Tensor, Tensor]:
            self.sizes.append(outputs.shape[1])
            return super().gradient(outputs, targets, *rest)

    trained(Counting(1), line(65), line(10), epochs=1, batch_size=32)
    assert Counting.sizes == [22, 22, 21]


def test_a_model_without_hidden_layers() -> None:
    network, history = trained(
        SquaredError(1), line(200), line(100, 1), hidden=(), input_drop=0.1, learning_rate=0.1
    )
    assert len(network.weights) == 1
    assert best_score(history) > 0.9


def test_divergence_is_told() -> None:
    _, history = trained(SquaredError(1), line(100), line(50), optimizer="sgd", learning_rate=1e6)
    assert history.diverged is not None
    assert len(history.epochs) == history.diverged - 1
    assert all(np.isfinite(epoch.loss) for epoch in history.epochs)


def test_without_validation_rows_the_last_epoch_is_kept() -> None:
    rows = line(100)
    _, history = trained(SquaredError(1), rows, Rows(rows.x[:0], rows.y[:0]), epochs=7, patience=1)
    assert [epoch.number for epoch in history.epochs] == [1, 2, 3, 4, 5, 6, 7]
    assert history.best == history.epochs[-1]
    assert history.best.validation_loss is None
    assert history.best.loss < 0.2


def test_label_smoothing_makes_answers_less_sure() -> None:
    rows = line(300, noise=0.0)
    classes = Rows(rows.x, (rows.y[:, 0] > 0).long())
    surest = []
    for smoothing in (0.0, 0.4):
        network, _ = trained(CrossEntropy(2), classes, classes, label_smoothing=smoothing, hidden_drop=(0.0,))
        surest.append(network.evaluate(rows.x[None]).softmax(dim=2).amax(dim=2).median().item())
    assert surest[0] > 0.99
    assert surest[1] == pytest.approx(0.8, abs=0.05)


def test_class_weights_count_as_repeated_rows() -> None:
    random = np.random.default_rng(0)
    x = torch.from_numpy(random.normal(size=(400, 1)).astype(np.float32))
    y = torch.from_numpy((random.uniform(size=400) < 0.25).astype(np.int64))  # independent of x
    rows, config = np.arange(400), TrainingConfig(hidden=(), epochs=60, validation=0.0, weight_decay=0.0)
    member = Member(config, rows, rows[:0], np.random.SeedSequence(0), class_weights=(1.0, 3.0))
    found = fit([member], Examples(x, y), CrossEntropy(2))
    second = found.network.evaluate(torch.zeros(1, 1, 1)).softmax(dim=2)[0, 0, 1].item()
    odds = 3.0 * y.sum().item() / (400 - y.sum().item())
    assert second == pytest.approx(odds / (1 + odds), abs=0.04)


def test_epochs_are_reported_as_they_end() -> None:
    seen: list[Epoch] = []

    def on_epoch(epochs: Mapping[int, Epoch]) -> tuple[()]:
        seen.append(epochs[0])
        return ()

    rows = line(70)
    member = Member(
        TrainingConfig(hidden=(4,), epochs=3), np.arange(50), np.arange(50, 70), np.random.SeedSequence(0)
    )
    found = fit([member], Examples(rows.x, rows.y), SquaredError(1), on_epoch=on_epoch)
    assert seen == found.histories[0].epochs
    assert [epoch.number for epoch in seen] == [1, 2, 3]
