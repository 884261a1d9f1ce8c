"""Evaluation: how good a model's predictions are, and what their uncertainty is worth.

>>> from dropserve_models import load
>>> from dropserve_models.evaluation import evaluate
>>> report = evaluate(load("repository/diabetes/1"), X, y, passes=100)
>>> report.figure("rmse").value, report.figure("rmse").standard_error

Data flows top to bottom::

    metrics, figure    scores; figures with their standard errors
    calibrated         how a model's calibrated intervals and prediction sets did
    truth              what they are compared with
    answers            its answers in both modes, through the engine that serves
    outputs            the figures and curves of a target or of classes
    evaluator, report  all of it, and as JSON
    text, page         for readers: a table, and an HTML page with pictures
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dropserve_models.evaluation.evaluator import evaluate
    from dropserve_models.evaluation.report import Report

__all__ = ["Report", "evaluate"]


def __getattr__(name: str) -> object:
    # Lazy: training, which reports some figures, needs the metrics alone.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "evaluator" if name == "evaluate" else "report"
    return getattr(import_module(f"{__name__}.{home}"), name)
