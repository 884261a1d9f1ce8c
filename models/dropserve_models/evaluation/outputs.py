"""From answers to figures and curves: of one target of a regression, or of a classifier's classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dropserve_models.evaluation.answers import Answers
from dropserve_models.evaluation.calibrated import NOMINAL, Calibrated
from dropserve_models.evaluation.figure import (
    Figure,
    ause_figure,
    calibration_figure,
    mean_figure,
    missing,
    order_figure,
    r2_figure,
    rmse_figure,
)
from dropserve_models.evaluation.measures import LARGEST_ERRORS
from dropserve_models.evaluation.metrics import (
    auc_placements,
    brier,
    correct,
    covered,
    gaussian_interval,
    log_probability,
    placements,
    rejection_curve,
    reliability,
)
from dropserve_models.evaluation.metrics.gaussian import Doubles
from dropserve_models.evaluation.report import Curves

COVERAGES = (0.5, 0.8, 0.9, 0.95)
_NO_NOISE = "the model predicts no noise"


def of_target(
    truth: Doubles, answers: Answers, output: int, coverages: Sequence[float], out: Answers | None
) -> tuple[dict[str, Figure], Curves]:
    """Figures and curves of one target of a regression.

    Parameters
    ----------
    truth : ndarray [rows]
    answers : Answers
    output : int
        Which of its columns the target is.
    out : Answers, optional
        To rows out of distribution.
    """
    mean, error = answers.mean[:, output], np.abs(truth - answers.mean[:, output])
    total, epistemic = _column(answers.total, output), _column(answers.epistemic, output)
    figures = {"rmse": rmse_figure(truth, mean), "mae": mean_figure(error), "r2": r2_figure(truth, mean)}
    density = _column(answers.log_density, output)
    figures["log_likelihood"] = missing(_NO_NOISE) if density is None else mean_figure(density)
    if answers.mode == "monte_carlo":
        gaussian = _column(answers.gaussian_log_density, output)
        figures["gaussian_log_likelihood"] = missing(_NO_NOISE) if gaussian is None else mean_figure(gaussian)
    crps = _column(answers.crps, output)
    assert crps is not None
    figures["crps"] = mean_figure(crps)
    coverage = None
    for level in coverages:
        name = f"{100.0 * level:g}"
        if total is None:
            figures[f"picp_{name}"] = figures[f"width_{name}"] = missing(_NO_NOISE)
        else:
            lower, upper = gaussian_interval(mean, np.square(total), level)
            figures[f"picp_{name}"] = mean_figure(covered(truth, lower, upper))
            figures[f"width_{name}"] = mean_figure(upper - lower)
    found, sizes = _calibrated(answers.calibrated, output)
    figures |= found
    if total is None:
        figures["error_auroc"] = figures["ause"] = missing(_NO_NOISE)
    else:
        large = error > np.quantile(error, 1.0 - LARGEST_ERRORS)
        figures["error_auroc"] = order_figure(placements(large, total), "all errors are alike")
        if epistemic is not None:
            by_passes = placements(large, epistemic)
            figures["error_auroc_epistemic"] = order_figure(by_passes, "all errors are alike")
        figures["ause"] = ause_figure(error, total)
        observed = [covered(truth, *gaussian_interval(mean, np.square(total), q)).mean() for q in NOMINAL]
        coverage = np.stack([NOMINAL, observed], axis=1)
    outside = (None, None) if out is None else (_column(out.total, output), _column(out.epistemic, output))
    if out is not None:
        figures |= _told_apart((total, epistemic), outside)
    rejection = None if total is None else rejection_curve(error, total)
    return figures, Curves(
        error, mean, total, epistemic, rejection, coverage, sizes, None, outside[0], outside[1]
    )


def of_classes(
    classes: NDArray[np.int64], answers: Answers, out: Answers | None
) -> tuple[dict[str, Figure], Curves]:
    """Figures and curves of a classifier; `classes` [rows] are the true ones, by number."""
    probabilities, total = answers.mean, answers.total
    assert total is not None
    right = correct(classes, probabilities)
    wrong = ~right
    one_kind = "every row is right" if right.all() else "every row is wrong"
    figures = {
        "accuracy": mean_figure(right),
        "auc": order_figure(auc_placements(classes, probabilities), "only one class occurs"),
        "log_likelihood": mean_figure(log_probability(classes, probabilities)),
        "brier": mean_figure(brier(classes, probabilities)),
        "ece": calibration_figure(classes, probabilities),
        "error_auroc": order_figure(placements(wrong, total), one_kind),
    }
    if answers.epistemic is not None:
        figures["error_auroc_epistemic"] = order_figure(placements(wrong, answers.epistemic), one_kind)
    found, sizes = _calibrated(answers.calibrated, 0)
    figures |= found
    outside = (None, None) if out is None else (out.total, out.epistemic)
    if out is not None:
        figures |= _told_apart((total, answers.epistemic), outside)
    return figures, Curves(
        wrong.astype(np.float64),
        probabilities.max(axis=1),
        total,
        answers.epistemic,
        rejection_curve(wrong, total),
        calibrated=sizes,
        reliability=reliability(classes, probabilities),
        out_total=outside[0],
        out_epistemic=outside[1],
    )


def _calibrated(calibrated: Calibrated | None, output: int) -> tuple[dict[str, Figure], Doubles | None]:
    """Figures of the coverages that were asked for, and the curve."""
    if calibrated is None:
        return {}, None
    return calibrated.figures(output), calibrated.curve[:, output] if len(calibrated.curve) else None


def _told_apart(
    inside: tuple[Doubles | None, Doubles | None], outside: tuple[Doubles | None, Doubles | None]
) -> dict[str, Figure]:
    """How well uncertainty tells rows out of distribution: by all of it, and by the passes' part."""
    figures = {}
    for name, within, beyond in zip(("ood_auroc", "ood_auroc_epistemic"), inside, outside, strict=True):
        if within is not None and beyond is not None:
            strange = np.repeat([False, True], [len(within), len(beyond)])
            figures[name] = order_figure(placements(strange, np.concatenate([within, beyond])), "")
        elif name == "ood_auroc":
            figures[name] = missing(_NO_NOISE)
    return figures


def _column(values: Doubles | None, output: int) -> Doubles | None:
    return None if values is None else values[:, output]
