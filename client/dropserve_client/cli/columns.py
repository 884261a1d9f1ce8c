"""A prediction as named columns, one value a row: what output files hold.

For every output NAME of the model:

==================== ==============================================================================
NAME                 the mean: the target in its own unit, or the probability of the class
NAME_std             standard deviation over the passes
NAME_standard_error  of the mean
NAME_aleatoric_std   standard deviation of the noise that the model predicts
NAME_predictive_std  of both together: the root of variance + aleatoric variance
NAME_q0.05           a quantile over the passes, for each one asked for
NAME_lower           lower end of the calibrated interval, where one was asked for
NAME_upper           upper end
NAME_in_set          1 where the calibrated prediction set holds the class, else 0
==================== ==============================================================================

Classifiers also have `label`, the most probable class, first; and predictive_entropy, expected_entropy
and mutual_information, in nats, last. Columns that a prediction doesn't have are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dropserve_client.types import ModelInfo, Prediction

Columns: TypeAlias = dict[str, NDArray[Any]]
ENTROPIES = ("predictive_entropy", "expected_entropy", "mutual_information")


def is_classifier(info: ModelInfo) -> bool:
    """Whether the outputs are the probabilities of classes."""
    return info.task in ("binary", "multiclass")


def columns(prediction: Prediction, info: ModelInfo, quantiles: Sequence[float]) -> Columns:
    """The columns, in order; the quantiles are those asked for."""
    named: Columns = {}
    if is_classifier(info):
        named["label"] = labels(prediction, info)
    aleatoric = prediction.aleatoric_variance
    predictive = None if aleatoric is None or prediction.variance is None else prediction.predictive_variance
    spreads = {
        "std": prediction.std,
        "standard_error": prediction.standard_error,
        "aleatoric_std": None if aleatoric is None else np.sqrt(aleatoric),
        "predictive_std": None if predictive is None else np.sqrt(predictive),
    }
    calibrated = {
        "lower": prediction.interval_lower,
        "upper": prediction.interval_upper,
        "in_set": prediction.prediction_set,
    }
    for index, name in enumerate(info.output_names):
        named[name] = prediction.mean[:, index]
        for suffix, values in spreads.items():
            if values is not None:
                named[f"{name}_{suffix}"] = values[:, index]
        if prediction.quantiles is not None:
            for quantile, values in zip(quantiles, prediction.quantiles, strict=True):
                named[f"{name}_q{quantile:g}"] = values[:, index]
        for suffix, values in calibrated.items():
            if values is not None:
                named[f"{name}_{suffix}"] = values[:, index]
    for name in ENTROPIES:
        values = getattr(prediction, name)
        if values is not None:
            named[name] = values
    return named


def labels(prediction: Prediction, info: ModelInfo) -> NDArray[np.str_]:
    """The most probable class of each row."""
    chosen: NDArray[np.str_] = np.array(info.output_names)[prediction.mean.argmax(axis=1)]
    return chosen


def sets(prediction: Prediction, info: ModelInfo) -> list[str]:
    """The classes in each row's prediction set, as text; none where no sets were asked for."""
    held = [] if prediction.prediction_set is None else prediction.prediction_set.tolist()
    return [
        ", ".join(name for name, inside in zip(info.output_names, row, strict=True) if inside) for row in held
    ]
