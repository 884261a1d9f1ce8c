"""A smooth model of the scores over the space of settings.

The best of many noisy scores flatters the setting that has it. A Gaussian process learns from all trials
how far a score can be believed, says where to look next, and gives every trial a mean that its neighbours
have their part in: by that the winner is chosen.
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern

from dropserve_models.training.search.board import Standing

Array = NDArray[np.float64]

FEWEST_TRIALS = 5
"""To learn from; below, the scores speak for themselves."""


class Surrogate:
    """Posterior of the scores given those of trials.

    Parameters
    ----------
    coordinates : ndarray [trials, dimensions]
    scores : Standing
    """

    def __init__(self, coordinates: Array, scores: Standing) -> None:
        self._centre = float(scores.means.mean())
        self._spread = max(float(scores.means.std()), 1e-12)
        self._coordinates = coordinates
        noise = np.maximum(scores.variances / self._spread**2, 1e-6)
        dimensions = coordinates.shape[1]
        # Bounds keep a dozen points from finding that one option explains everything, or nothing.
        kernel = ConstantKernel(1.0, (0.2, 10.0)) * Matern(
            np.ones(dimensions), [(0.2, 20.0)] * dimensions, nu=2.5
        )
        optimizer = "fmin_l_bfgs_b" if len(coordinates) >= FEWEST_TRIALS else None
        self._process = GaussianProcessRegressor(kernel, alpha=noise, optimizer=optimizer)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            self._process.fit(coordinates, (scores.means - self._centre) / self._spread)

    def posterior(self, coordinates: Array) -> tuple[Array, Array]:
        """Means and standard deviations of the true scores there."""
        mean, std = self._process.predict(coordinates, return_std=True)
        return mean * self._spread + self._centre, std * self._spread

    def promising(self, pool: Array, count: int, random: np.random.Generator) -> list[int]:
        """Places in `pool` to try next: each the best of one function drawn from the posterior.

        Thompson sampling: it tries what may be best, as often as it may be, and a whole batch at once.
        """
        mean, covariance = self._process.predict(pool, return_cov=True)
        values, vectors = np.linalg.eigh(covariance)
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        chosen: dict[int, None] = {}
        for _ in range(8 * count):
            drawn = mean + root @ random.standard_normal(len(root))
            chosen.setdefault(int(np.argmax(drawn)))
            if len(chosen) == count:
                break
        return list(chosen)
