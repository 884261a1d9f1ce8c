"""By what settings are compared."""

from __future__ import annotations

from dropserve_models.errors import ConfigError
from dropserve_models.training.config import TrainingConfig
from dropserve_models.training.task import Goal

SIGNS = {"log_likelihood": 1.0, "accuracy": 1.0, "rmse": -1.0}
"""1 where more is better, -1 where less is."""


def choose_metric(asked: str | None, goal: Goal, config: TrainingConfig) -> str:
    """The metric asked for; by default the log-likelihood of Monte Carlo predictions.

    A model that does not predict the noise has no likelihood: it is judged by its rmse.

    Raises
    ------
    ConfigError
        The task does not have it.
    """
    predicts_density = goal.is_classification or config.loss == "beta_nll"
    available = ["log_likelihood"] if predicts_density else []
    available.append("accuracy" if goal.is_classification else "rmse")
    if asked is None:
        return available[0]
    if asked not in available:
        reason = goal.task if predicts_density else f"{goal.task} with loss {config.loss}"
        raise ConfigError(f"a search by {asked!r} can't be: {reason} is judged by {' or '.join(available)}")
    return asked
