"""What one would otherwise take from scikit-learn, with its defaults."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dropserve_models.evaluation.metrics import gaussian_log_density, log_probability
from dropserve_models.training.split import Split
from dropserve_models.training.table import Table
from dropserve_models.training.task import Goal

LogLikelihoods = Callable[[Table, Goal, Split], NDArray[np.float64]]

FOLDS = 3
EPOCHS = 500
"""Of the MLP, at most: the default of 200 is too few for some of the tables."""


def _mlp(goal: Goal) -> Any:
    if goal.is_classification:
        return make_pipeline(StandardScaler(), MLPClassifier(max_iter=EPOCHS, random_state=0))
    network = make_pipeline(StandardScaler(), MLPRegressor(max_iter=EPOCHS, random_state=0))
    return TransformedTargetRegressor(network, transformer=StandardScaler())


def _boosting(goal: Goal) -> Any:
    kind = HistGradientBoostingClassifier if goal.is_classification else HistGradientBoostingRegressor
    return kind(random_state=0)


def _log_likelihoods(
    make: Callable[[Goal], Any], table: Table, goal: Goal, split: Split
) -> NDArray[np.float64]:
    """Of each row left out; of numbers by a Gaussian whose variance is that of out-of-fold errors."""
    X, test_X = table.features[split.training], table.features[split.validation]
    warnings.simplefilter("ignore", ConvergenceWarning)
    if goal.is_classification:
        fitted = make(goal).fit(X, goal.values[split.training])
        return log_probability(goal.values[split.validation], fitted.predict_proba(test_X))
    y, test_y = goal.values[split.training, 0], goal.values[split.validation, 0]
    errors = y - cross_val_predict(make(goal), X, y, cv=KFold(FOLDS, shuffle=True, random_state=0))
    mean = make(goal).fit(X, y).predict(test_X)
    return gaussian_log_density(test_y, mean, np.full_like(mean, np.square(errors).mean()))


def _rival(make: Callable[[Goal], Any]) -> LogLikelihoods:
    return lambda table, goal, split: _log_likelihoods(make, table, goal, split)


RIVALS: dict[str, LogLikelihoods] = {
    "scikit-learn's MLP": _rival(_mlp),
    "gradient boosting": _rival(_boosting),
}
