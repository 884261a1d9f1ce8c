"""What the figures are called, and how to read them."""

from __future__ import annotations

from typing import NamedTuple


class Measure(NamedTuple):
    """A figure's name for readers, which way is better, and what it means."""

    title: str
    better: str
    meaning: str


LARGEST_ERRORS = 0.1
"""The share of a regression's rows, those of the largest errors, that its uncertainty should point out."""

_MEASURES = {
    "rmse": Measure("RMSE", "lower", "root of the mean squared error, in the target's unit"),
    "mae": Measure("MAE", "lower", "mean absolute error, in the target's unit"),
    "r2": Measure("R²", "higher", "share of the target's variance that is explained"),
    "accuracy": Measure("accuracy", "higher", "share of rows whose most probable class is the true one"),
    "auc": Measure("AUC", "higher", "area under the ROC curve; of several classes, each against the rest"),
    "log_likelihood": Measure(
        "log-likelihood",
        "higher",
        "mean log probability (density) of the truth, in nats a row; of Monte Carlo, of all passes' mixture",
    ),
    "gaussian_log_likelihood": Measure(
        "  of one Gaussian", "higher", "the same of a Gaussian with the mixture's mean and variance"
    ),
    "brier": Measure("Brier score", "lower", "mean squared distance of the probabilities from the truth"),
    "ece": Measure(
        "ECE", "lower", "expected calibration error: how far confidence is from accuracy, 15 bins"
    ),
    "crps": Measure("CRPS", "lower", "continuous ranked probability score, in the target's unit"),
    "error_auroc": Measure(
        "AUROC, errors", "higher", "does the whole uncertainty rank wrong rows (the largest errors) first?"
    ),
    "error_auroc_epistemic": Measure(
        "  by passes alone", "higher", "the same by what the passes disagree about"
    ),
    "ause": Measure("AUSE", "lower", "area between the rejection curve and the best one, in mean errors"),
    "ood_auroc": Measure(
        "AUROC, strange rows", "higher", "does the whole uncertainty tell rows out of distribution?"
    ),
    "ood_auroc_epistemic": Measure(
        "  by passes alone", "higher", "the same by what the passes disagree about"
    ),
}
_AT_A_COVERAGE = {
    "picp": Measure(
        "PICP, {} % Gaussian", "nominal", "share of truths within intervals that should hold {} %"
    ),
    "width": Measure("  mean width", "lower", "of these intervals, in the target's unit"),
    "interval_picp": Measure(
        "PICP, {} % calibrated",
        "nominal",
        "share of truths within calibrated intervals that should hold {} %",
    ),
    "interval_width": Measure("  mean width", "lower", "of these intervals, in the target's unit"),
    "set_coverage": Measure(
        "{} % sets, coverage", "nominal", "share of true classes within prediction sets that should hold {} %"
    ),
    "set_size": Measure("  mean size", "lower", "classes in these sets"),
}


def measure_of(name: str) -> Measure:
    """The measure of a figure's name; ``picp_90`` and the like are of a coverage, in percent."""
    if name in _MEASURES:
        return _MEASURES[name]
    kind, _, percent = name.rpartition("_")
    measure = _AT_A_COVERAGE[kind]
    return Measure(measure.title.format(percent), measure.better, measure.meaning.format(percent))


def place_of(name: str) -> tuple[int, float, int]:
    """Where a figure stands in a table: errors and scores, then coverages in their order, then rankings."""
    if name in _MEASURES:
        place = list(_MEASURES).index(name)
        return (0 if place < list(_MEASURES).index("error_auroc") else 2), place, 0
    kind, _, percent = name.rpartition("_")
    return 1, float(percent), list(_AT_A_COVERAGE).index(kind)
