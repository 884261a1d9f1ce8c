"""How good predictions and their uncertainty are: one home for every metric.

=================  ====================================================================================
regression         rmse, mae, r2
gaussian, mixture  log density and CRPS of a Gaussian, of a mixture of Gaussians (Gal's log-likelihood),
                   of an ensemble of samples
intervals          PICP, mean width, the central intervals of a Gaussian
classification     correct, log_probability, brier, auc
calibration        reliability, expected_calibration_error
ranking            auroc, rejection_curve, ause: does the uncertainty know where the errors are?
=================  ====================================================================================

What is a mean over rows is returned row by row (densities, CRPS, Brier scores, ...): its mean is the figure,
its standard deviation over the square root of the rows the figure's standard error, and that of the
differences of two models the standard error of their comparison. Arrays are computed in float64.
"""

from dropserve_models.evaluation.metrics.calibration import (
    Reliability,
    expected_calibration_error,
    reliability,
)
from dropserve_models.evaluation.metrics.classification import (
    auc,
    auc_placements,
    brier,
    correct,
    log_probability,
)
from dropserve_models.evaluation.metrics.gaussian import gaussian_crps, gaussian_log_density
from dropserve_models.evaluation.metrics.intervals import covered, gaussian_interval, mean_width, picp
from dropserve_models.evaluation.metrics.mixture import (
    ensemble_crps,
    mixture_crps,
    mixture_log_density,
)
from dropserve_models.evaluation.metrics.ranking import Rejection, auroc, ause, placements, rejection_curve
from dropserve_models.evaluation.metrics.regression import mae, r2, rmse

__all__ = [
    "Rejection",
    "Reliability",
    "auc",
    "auc_placements",
    "auroc",
    "ause",
    "brier",
    "correct",
    "covered",
    "ensemble_crps",
    "expected_calibration_error",
    "gaussian_crps",
    "gaussian_interval",
    "gaussian_log_density",
    "log_probability",
    "mae",
    "mean_width",
    "mixture_crps",
    "mixture_log_density",
    "picp",
    "placements",
    "r2",
    "rejection_curve",
    "reliability",
    "rmse",
]
