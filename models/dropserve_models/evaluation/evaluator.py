"""Evaluating a model on rows whose truth is known: deterministic and Monte Carlo, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dropserve_models.errors import InputError, MonteCarloUnavailable
from dropserve_models.evaluation.answers import CRPS_PASSES, Answers, OnRows, ask
from dropserve_models.evaluation.figure import Figure
from dropserve_models.evaluation.outputs import COVERAGES, of_classes, of_target
from dropserve_models.evaluation.report import Curves, OutputReport, Report
from dropserve_models.evaluation.truth import read_truth
from dropserve_models.features import read_features
from dropserve_models.model import Model
from dropserve_models.options import check_options, integer, numbers
from dropserve_models.prediction import Features, FloatArray, ModelInfo, MonteCarloOptions

PASSES = 100


class _Subject(NamedTuple):
    """A model in one mode, with its answers to the rows and to those out of distribution."""

    name: str
    answers: Answers
    out: Answers | None


def evaluate(
    model: Model,
    X: Features,
    y: ArrayLike,
    *,
    passes: int = PASSES,
    seed: int = 0,
    coverages: Sequence[float] = COVERAGES,
    out_of_distribution: Features | None = None,
    baseline: Model | None = None,
    on_rows: OnRows = lambda rows: None,
) -> Report:
    """Predict rows in both modes and compare with the truth.

    Parameters
    ----------
    model : Model
    X : array-like or data frame, [rows, features]
        As `Model.predict` takes them; with a `baseline` that has other features, a frame with the columns of
        both.
    y : array-like [rows] or [rows, outputs]
        The targets of a regression, or the classes: labels of the model, or else their numbers. A label that
        is a number goes by its shortest form: "3" for 3.0.
    passes : int
        Of Monte Carlo dropout.
    seed : int
        Fixes the masks, and so every figure.
    coverages : sequence of float
        Of the intervals whose coverage and width are measured, each within (0, 1): Gaussian ones, and
        calibrated ones (or prediction sets) where a model has them.
    out_of_distribution : array-like or data frame, optional
        Rows unlike those the model is for, that its uncertainty should tell from `X`.
    baseline : Model, optional
        Of the same task and outputs, to be compared with on the same rows.
    on_rows : callable
        Told of every number of rows that was predicted.

    Returns
    -------
    Report
        Without a Monte Carlo part where the model can't; a note says why.

    Raises
    ------
    InputError
        Features, targets or options are wrong, or the baseline answers something else.
    """
    info = model.info
    if baseline is not None:
        check_comparable(info, baseline.info)
    coverages = numbers("coverages", coverages)
    for coverage in coverages:
        if not 0.0 < coverage < 1.0:
            raise InputError("coverages", f"coverage {coverage:g} is not within (0, 1)")
    options = MonteCarloOptions(integer("passes", passes), integer("seed", seed))
    check_options(options)
    features = read_features(X, info.feature_names, info.columns)
    truth = read_truth(y, info, len(features))
    notes: list[str] = []
    calibrated = info.calibrated or (baseline is not None and baseline.info.calibrated)
    sizes = coverages if calibrated else ()
    subjects = _subjects(model, "", features, out_of_distribution, truth, options, sizes, notes, on_rows)
    if baseline is not None:
        held = read_features(X, baseline.info.feature_names, baseline.info.columns)
        subjects += _subjects(
            baseline, "baseline_", held, out_of_distribution, truth, options, sizes, notes, on_rows
        )
    if info.task == "regression":
        outputs = tuple(
            _output(name, truth[:, column], subjects, column, coverages)
            for column, name in enumerate(info.output_names)
        )
        if passes > CRPS_PASSES:
            notes.append(f"The CRPS of Monte Carlo is that of the first {CRPS_PASSES} passes.")
    else:
        outputs = (_output("class", truth[:, 0], subjects, None, coverages),)
    able = any(subject.answers.mode == "monte_carlo" for subject in subjects)
    return Report(
        model=info,
        rows=len(features),
        passes=passes if able else None,
        seed=seed if able else None,
        outputs=outputs,
        baseline=None if baseline is None else baseline.info,
        out_of_distribution=None if out_of_distribution is None else "rows given",
        notes=tuple(notes),
        majority=None if info.task == "regression" else _majority(truth, info),
    )


def check_comparable(info: ModelInfo, baseline: ModelInfo) -> None:
    """Raise InputError unless two models answer the same question."""
    if (baseline.task, baseline.output_names) != (info.task, info.output_names):
        raise InputError(
            "baseline",
            f"the baseline {_title(baseline)} does not answer what {_title(info)} does: "
            f"{_answers(baseline)} instead of {_answers(info)}",
        )


def _subjects(
    model: Model,
    prefix: str,
    features: FloatArray,
    out_of_distribution: Features | None,
    truth: NDArray[np.float64],
    options: MonteCarloOptions,
    coverages: Sequence[float],
    notes: list[str],
    on_rows: OnRows,
) -> list[_Subject]:
    """A model in the modes it has."""
    out = None
    if out_of_distribution is not None:
        out = read_features(out_of_distribution, model.info.feature_names, model.info.columns)
    found = []
    for mode in (None, options):
        try:
            answers = ask(model, features, mode, truth, coverages, on_rows)
        except MonteCarloUnavailable as error:
            notes.append(f"No Monte Carlo part: {error}.")
            break
        beyond = None if out is None else ask(model, out, mode, on_rows=on_rows)
        found.append(_Subject(prefix + answers.mode, answers, beyond))
    return found


def _output(
    name: str,
    truth: NDArray[np.float64],
    subjects: Sequence[_Subject],
    column: int | None,
    coverages: Sequence[float],
) -> OutputReport:
    figures: dict[str, dict[str, Figure]] = {}
    curves: dict[str, Curves] = {}
    for subject in subjects:
        if column is None:
            found = of_classes(truth.astype(np.int64), subject.answers, subject.out)
        else:
            found = of_target(truth, subject.answers, column, coverages, subject.out)
        figures[subject.name], curves[subject.name] = found
    pairs = [
        ("monte_carlo", "deterministic"),
        ("deterministic", "baseline_deterministic"),
        ("monte_carlo", "baseline_monte_carlo"),
    ]
    differences = {
        f"{one} - {other}": _differences(figures[one], figures[other])
        for one, other in pairs
        if one in figures and other in figures
    }
    return OutputReport(name, truth, figures, differences, curves)


def _differences(ours: dict[str, Figure], theirs: dict[str, Figure]) -> dict[str, Figure]:
    found = {name: figure.minus(theirs[name]) for name, figure in ours.items() if name in theirs}
    return {name: figure for name, figure in found.items() if figure is not None}


def _majority(truth: NDArray[np.float64], info: ModelInfo) -> tuple[str, float]:
    counts = np.bincount(truth[:, 0].astype(np.int64), minlength=len(info.output_names))
    return info.output_names[int(counts.argmax())], float(counts.max() / counts.sum())


def _title(info: ModelInfo) -> str:
    return f"{info.name}/{info.version}"


def _answers(info: ModelInfo) -> str:
    return f"{info.task} of {', '.join(info.output_names[:5])}"
