"""The data sets that come with scikit-learn, by name: ``sklearn:breast_cancer``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dropserve_models.errors import DataError
from dropserve_models.training.arrays import table_from_arrays
from dropserve_models.training.table import Table

BUNDLED = ("breast_cancer", "diabetes", "digits", "iris", "linnerud", "wine")


def read_bundled(name: str, categorical: Sequence[str] = ()) -> Table:
    """Load one of scikit-learn's bundled sets; nothing is downloaded. For `categorical` see `read_table`.

    Raises
    ------
    DataError
        There is no such set.
    """
    if name not in BUNDLED:
        raise DataError(f"scikit-learn bundles no data set {name!r}; there are: {', '.join(BUNDLED)}")
    from sklearn import datasets

    bunch: Any = getattr(datasets, f"load_{name}")()
    X, y = np.asarray(bunch.data), np.asarray(bunch.target)
    names = tuple(str(n) for n in getattr(bunch, "target_names", ()))
    multiple = y.ndim == 2
    return table_from_arrays(
        X,
        y.reshape(len(y), -1),
        feature_names=tuple(str(n) for n in bunch.feature_names),
        target_names=names if multiple else ("target",),
        labels=names if names and not multiple else None,
        categorical=categorical,
    )
