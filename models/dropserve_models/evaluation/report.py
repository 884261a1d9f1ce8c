"""What an evaluation found, and the same as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from dropserve_models.evaluation.figure import Figure
from dropserve_models.evaluation.metrics import Rejection, Reliability
from dropserve_models.evaluation.metrics.gaussian import Doubles
from dropserve_models.prediction import ModelInfo

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Curves:
    """What one subject's pictures are drawn from; arrays are of the rows, in their order.

    Attributes
    ----------
    error : ndarray [rows]
        Absolute errors, or 1 for a wrong class and 0 for the right one.
    mean : ndarray [rows]
        Predictions; of classifiers the confidence.
    total, epistemic : ndarray [rows] or None
        Uncertainty; see `answers.Answers`.
    rejection : Rejection or None
        Of the error by the whole uncertainty.
    coverage : ndarray [coverages, 2] or None
        Nominal and observed coverage of central Gaussian intervals; regression.
    calibrated : ndarray [coverages, 3] or None
        Nominal coverage, that observed, and mean size of calibrated intervals, or prediction sets.
    reliability : Reliability or None
        Classifiers.
    out_total, out_epistemic : ndarray [rows out of distribution] or None
    """

    error: Doubles
    mean: Doubles
    total: Doubles | None = None
    epistemic: Doubles | None = None
    rejection: Rejection | None = None
    coverage: Doubles | None = None
    calibrated: Doubles | None = None
    reliability: Reliability | None = None
    out_total: Doubles | None = None
    out_epistemic: Doubles | None = None


@dataclass(frozen=True, slots=True)
class OutputReport:
    """The figures of one target, or of a classifier's classes.

    Attributes
    ----------
    name : str
        Of the target; "class" for classifiers.
    truth : ndarray [rows]
        The targets, or the numbers of the true classes.
    figures : dict of str to dict of str to Figure
        By subject ("deterministic", "monte_carlo", and "baseline_" with either) and measure.
    differences : dict of str to dict of str to Figure
        By "SUBJECT - SUBJECT" and measure; on the same rows, so with a standard error of their own.
    curves : dict of str to Curves
        By subject.
    """

    name: str
    truth: Doubles
    figures: dict[str, dict[str, Figure]]
    differences: dict[str, dict[str, Figure]]
    curves: dict[str, Curves]


@dataclass(frozen=True, slots=True)
class Report:
    """What an evaluation found.

    Attributes
    ----------
    model : ModelInfo
    baseline : ModelInfo or None
    rows : int
    passes, seed : int or None
        Of Monte Carlo; None where the model can't.
    outputs : tuple of OutputReport
        One for each target, or one for a classifier.
    out_of_distribution : str or None
        What the rows out of distribution are.
    notes : tuple of str
        What could not be told, or should be known, a sentence each.
    source : str
        Where the rows come from.
    """

    model: ModelInfo
    rows: int
    passes: int | None
    seed: int | None
    outputs: tuple[OutputReport, ...]
    baseline: ModelInfo | None = None
    out_of_distribution: str | None = None
    notes: tuple[str, ...] = ()
    source: str = ""
    majority: tuple[str, float] | None = field(default=None)
    """A classifier's most frequent class among the rows, and its share: what accuracy is without a model."""

    def figure(self, measure: str, subject: str = "monte_carlo", output: int = 0) -> Figure:
        """A figure by name, e.g. ``report.figure("rmse", "deterministic").value``."""
        return self.outputs[output].figures[subject][measure]

    def to_json(self) -> bytes:
        """The figures, differences and curves, UTF-8; docs/evaluation.md has the schema."""
        document = {
            "schema_version": SCHEMA_VERSION,
            "model": _model(self.model),
            "baseline": None if self.baseline is None else _model(self.baseline),
            "data": {"source": self.source, "rows": self.rows},
            "monte_carlo": None if self.passes is None else {"passes": self.passes, "seed": self.seed},
            "out_of_distribution": self.out_of_distribution,
            "majority_class": None
            if self.majority is None
            else {"label": self.majority[0], "share": self.majority[1]},
            "outputs": [_output(output) for output in self.outputs],
            "notes": list(self.notes),
        }
        return (
            json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False).encode(errors="replace")
            + b"\n"
        )


def _model(info: ModelInfo) -> dict[str, object]:
    return {
        "name": info.name,
        "version": info.version,
        "task": info.task,
        "features": len(info.feature_names),
        "outputs": list(info.output_names),
        "drop_rates": list(info.drop_rates),
    }


def _output(output: OutputReport) -> dict[str, object]:
    return {
        "name": output.name,
        "figures": {subject: _figures(figures) for subject, figures in output.figures.items()},
        "differences": {pair: _figures(figures) for pair, figures in output.differences.items()},
        "curves": {subject: _curves(curves) for subject, curves in output.curves.items()},
    }


def _figures(figures: Mapping[str, Figure]) -> dict[str, object]:
    return {
        name: {"value": _finite(figure.value), "standard_error": _finite(figure.standard_error)}
        | ({"note": figure.note} if figure.note else {})
        for name, figure in figures.items()
    }


def _curves(curves: Curves) -> dict[str, object]:
    result: dict[str, object] = {}
    if curves.coverage is not None:
        result["coverage"] = {
            "nominal": _numbers(curves.coverage[:, 0]),
            "observed": _numbers(curves.coverage[:, 1]),
        }
    if curves.calibrated is not None:
        columns = zip(("nominal", "observed", "mean_size"), curves.calibrated.T, strict=True)
        result["calibrated"] = {name: _numbers(values) for name, values in columns}
    if curves.reliability is not None:
        found = curves.reliability
        result["reliability"] = {
            "edges": _numbers(found.edges),
            "rows": found.counts.tolist(),
            "confidence": _numbers(found.confidence),
            "accuracy": _numbers(found.accuracy),
        }
    if curves.rejection is not None:
        kept = np.unique(np.linspace(1, len(curves.error), 101).astype(np.int64)) - 1
        result["rejection"] = {
            "kept": _numbers(curves.rejection.kept[kept]),
            "error": _numbers(curves.rejection.error[kept]),
            "best": _numbers(curves.rejection.best[kept]),
        }
    return result


def _numbers(values: Doubles) -> list[float | None]:
    return [_finite(value) for value in values.tolist()]


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
