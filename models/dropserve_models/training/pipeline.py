"""A trained model from raw features to answers, in torch: what the exported graph must agree with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dropserve_models.prediction import Task
from dropserve_models.training.config import TrainingConfig
from dropserve_models.training.fit import Epoch, History, Rows, fit
from dropserve_models.training.losses import CrossEntropy, GaussianNoise, Objective, SquaredError
from dropserve_models.training.network import Network
from dropserve_models.training.split import Split
from dropserve_models.training.standardise import Scaling
from dropserve_models.training.table import Floats, Table
from dropserve_models.training.task import Goal
from dropserve_models.training.threads import limited_threads


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Standardisation, network and what follows it.

    Attributes
    ----------
    task : {"regression", "binary", "multiclass"}
    feature_names, output_names : tuple of str
    feature_scaling : Scaling
    target_scaling : Scaling or None
        For regression.
    network : Network
    drop_rates : tuple of float
        On the input of each linear layer; 0 for none.
    objective : Objective
    """

    task: Task
    feature_names: tuple[str, ...]
    output_names: tuple[str, ...]
    feature_scaling: Scaling
    target_scaling: Scaling | None
    network: Network
    drop_rates: tuple[float, ...]
    objective: Objective

    @property
    def predicts_noise(self) -> bool:
        """Whether the answers include the variance of the noise."""
        return isinstance(self.objective, GaussianNoise)

    def predict(self, features: Floats) -> dict[str, Floats]:
        """Answers in eval mode, by the names of the exported graph's outputs.

        Parameters
        ----------
        features : ndarray [rows, features]

        Returns
        -------
        dict of str to ndarray
            ``probabilities`` [rows, classes]; or ``mean`` [rows, targets] in the targets' units and,
            where the model predicts noise, ``noise_variance`` [rows, targets] in their squares.
        """
        x = torch.from_numpy(self.feature_scaling.apply(features)).unsqueeze(0)
        outputs = self.network.evaluate(x)[0]
        if self.target_scaling is None:
            return {"probabilities": outputs.softmax(dim=1).numpy()}
        mean, std = (torch.from_numpy(a) for a in (self.target_scaling.mean, self.target_scaling.std))
        if not isinstance(self.objective, GaussianNoise):
            return {"mean": (outputs * std + mean).numpy()}
        centre, log_variance = self.objective.split(outputs)
        return {
            "mean": (centre * std + mean).numpy(),
            "noise_variance": (log_variance.exp() * std.square()).numpy(),
        }


def fit_pipeline(
    table: Table,
    goal: Goal,
    split: Split,
    config: TrainingConfig,
    seed: np.random.SeedSequence,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> tuple[Pipeline, History]:
    """Measure the scales on the training rows, and train a network on them.

    Raises
    ------
    ConfigError
        Training diverged.
    """
    feature_scaling = Scaling.of(table.features[split.training])
    target_scaling = None if goal.is_classification else Scaling.of(goal.values[split.training])
    x = torch.from_numpy(feature_scaling.apply(table.features))
    y = torch.from_numpy(goal.values if target_scaling is None else target_scaling.apply(goal.values))
    objective = _objective(goal, config)
    network = Network((x.shape[1], *config.hidden, objective.outputs), config.activation)
    training, validation = _rows(x, y, split.training), _rows(x, y, split.validation)
    with limited_threads(network.parameters.shape[1], config.batch_size):
        history = fit(network, training, validation, objective, config, seed, on_epoch)
    pipeline = Pipeline(
        task=goal.task,
        feature_names=table.feature_names,
        output_names=goal.output_names,
        feature_scaling=feature_scaling,
        target_scaling=target_scaling,
        network=network,
        drop_rates=config.drop_rates,
        objective=objective,
    )
    return pipeline, history


def _objective(goal: Goal, config: TrainingConfig) -> Objective:
    if goal.is_classification:
        return CrossEntropy(len(goal.output_names))
    targets = len(goal.output_names)
    return SquaredError(targets) if config.loss == "mse" else GaussianNoise(targets)


def _rows(x: Tensor, y: Tensor, chosen: np.ndarray[tuple[int], np.dtype[np.intp]]) -> Rows:
    index = torch.from_numpy(chosen)
    return Rows(x[index].unsqueeze(0), y[index].unsqueeze(0))
