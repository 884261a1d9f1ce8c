"""Dropout models: training, export, and inference with error bars.

>>> from dropserve_models import load
>>> model = load("repository/breast_cancer/1")
>>> model.predict(X).mean                                   # ONNX Runtime, eval mode
>>> model.predict(X, passes=100, seed=7).variance           # Monte Carlo dropout
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dropserve_models.model import Model, load
    from dropserve_models.prediction import ModelInfo, MonteCarloOptions, Prediction

__all__ = ["Model", "ModelInfo", "MonteCarloOptions", "Prediction", "load"]

_HOMES = {"Model": "model", "load": "model"}


def __getattr__(name: str) -> object:
    # Lazy, so that the command line can name a missing extra: it imports this package without any.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'prediction')}"), name)
