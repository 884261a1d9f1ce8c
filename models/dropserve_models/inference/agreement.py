"""When two ways of computing the same count as agreeing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dropserve_models.prediction import FloatArray

MAX_DIFFERENCE = 1e-4
"""How far outputs may be from what they should be, relative to the largest of these."""


def difference(ours: Sequence[FloatArray], theirs: Sequence[FloatArray]) -> float:
    """The largest difference between outputs, relative to the largest output; NaN where one is not a number.

    Outputs may be shaped differently, as long as they hold as many numbers.
    """
    return max(
        float(np.abs(our - their.reshape(our.shape)).max() / max(float(np.abs(their).max()), 1e-6))
        for our, their in zip(ours, theirs, strict=True)
    )
