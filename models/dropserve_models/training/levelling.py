"""Numbers that level off far from the mean."""

from __future__ import annotations

import numpy as np

from dropserve_models.training.table import Floats

FARTHEST = 1e9
"""Standard deviations that are told apart at all; the square of a larger number may be beyond float32."""


def level_off(standardised: Floats, limit: float) -> Floats:
    """Standardised numbers x as x / sqrt(1 + (x / L)^2), within the limit L; as they are where it is 0.

    A network follows its last slope beyond the rows it learned from, wherever that leads: a single value of
    24 standard deviations, a slip of the pen, then costs more log-likelihood than a thousand rows gain. Near
    the mean nothing changes. The curve is that of Holzmüller et al. ("Better by default", NeurIPS 2024).
    """
    if not limit:
        return standardised
    within = np.clip(standardised, -FARTHEST, FARTHEST)
    bent: Floats = within / np.sqrt(within * within * np.float32(limit**-2) + np.float32(1))
    return bent
