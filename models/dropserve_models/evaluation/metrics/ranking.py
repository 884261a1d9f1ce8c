"""Whether a score orders rows well: classes by probability, or errors by uncertainty."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from dropserve_models.evaluation.metrics.gaussian import Doubles


def auroc(positive: ArrayLike, score: ArrayLike) -> float | None:
    """Area under the ROC curve: the chance that a positive row scores higher than another, ties half.

    None unless there are rows of both kinds.

    Parameters
    ----------
    positive : array-like of bool [rows]
        Whether the row is what the score should be high for.
    score : array-like [rows]
    """
    found = placements(positive, score)
    return None if found is None else float(found.mean())


def placements(positive: ArrayLike, score: ArrayLike) -> Doubles | None:
    """What each row contributes to the AUROC: the mean is the area, and the spread tells its standard error.

    With V the share of the other kind's rows that a row is on the right side of, ties half, and a the area:
    a + (V - a) rows / (rows of its kind). Their squared deviations from a, summed and divided by rows^2, are
    the variance of DeLong et al., Biometrics 44 (1988), which divides by the rows of a kind less one.

    None unless there are rows of both kinds.
    """
    from scipy.stats import rankdata

    positive, score = np.asarray(positive, bool), np.asarray(score, np.float64)
    counts = {True: int(positive.sum()), False: int((~positive).sum())}
    if not counts[True] or not counts[False]:
        return None
    ranks = rankdata(score)
    result = np.empty(len(score))
    for kind, rows in ((True, positive), (False, ~positive)):
        below = (ranks[rows] - rankdata(score[rows])) / counts[not kind]
        right = below if kind else 1.0 - below
        area = right.mean()
        result[rows] = area + (right - area) * len(score) / counts[kind]
    return result


@dataclass(frozen=True, slots=True)
class Rejection:
    """The mean error of the rows that are left when the most uncertain ones are rejected.

    Attributes
    ----------
    kept : ndarray [rows]
        Shares of the rows left, from 1/rows to 1.
    error : ndarray [rows]
        Their mean error.
    best : ndarray [rows]
        The same when the rows of the largest errors are rejected: no order does better.
    overall : float
        The mean error of all rows, which an order that knows nothing leaves as it is.
    """

    kept: Doubles
    error: Doubles
    best: Doubles
    overall: float


def rejection_curve(error: ArrayLike, uncertainty: ArrayLike) -> Rejection:
    """Reject rows by their uncertainty, the highest first; rows of equal uncertainty count alike.

    Parameters
    ----------
    error : array-like [rows]
        Not negative: absolute errors, or 1 for a wrong class and 0 for the right one.
    uncertainty : array-like [rows]
    """
    error, uncertainty = np.asarray(error, np.float64), np.asarray(uncertainty, np.float64)
    rows = np.arange(1, len(error) + 1)
    _, group = np.unique(uncertainty, return_inverse=True)
    # Their order among themselves is chance: each has the mean of its group.
    alike = (np.bincount(group, error) / np.bincount(group))[group]
    by_uncertainty = alike[np.argsort(uncertainty, kind="stable")]
    return Rejection(
        kept=rows / len(error),
        error=np.cumsum(by_uncertainty) / rows,
        best=np.cumsum(np.sort(error)) / rows,
        overall=float(error.mean()),
    )


def ause(error: ArrayLike, uncertainty: ArrayLike) -> float | None:
    """Area under the sparsification error, of errors in units of their mean (Ilg et al., ECCV 2018).

    The area between the rejection curve and the best one. 0: the uncertainty orders rows as the errors do.
    None where there are no errors.
    """
    curve = rejection_curve(error, uncertainty)
    if not curve.overall > 0.0:
        return None
    return float((curve.error - curve.best).mean() / curve.overall)
