"""Comparing answers to the byte."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import numpy as np

from dropserve_models.prediction import Prediction


def differing(part: Prediction, whole: Prediction, rows: Sequence[int]) -> list[str]:
    """The fields of `part` that are not, to the byte, the `rows` of `whole`."""
    found = []
    for field in fields(Prediction):
        if field.name == "passes" and whole.row_passes is not None:
            continue  # the most that any row took
        ours, theirs = getattr(part, field.name), getattr(whole, field.name)
        if isinstance(theirs, np.ndarray):
            chosen = list(rows)
            expected = theirs[:, chosen] if field.name in ("samples", "quantiles") else theirs[chosen]
            same = ours is not None and ours.dtype == expected.dtype and ours.tobytes() == expected.tobytes()
        else:
            same = ours == theirs
        if not same:
            found.append(field.name)
    return found
