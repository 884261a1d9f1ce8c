"""The value to blame where numbers overflow."""

from __future__ import annotations

import numpy as np

from dropserve_models.training.encoding import Encoding
from dropserve_models.training.split import Rows
from dropserve_models.training.table import Table

FAR = 1e6
"""Standard deviations: only mistakes, and marks of missing values such as 1e30, are as far from the mean."""


def outlier(table: Table, rows: Rows, encoding: Encoding) -> str | None:
    """What is wrong with the number, in these rows, that is farthest from those learned from; None: nothing.

    Parameters
    ----------
    rows : ndarray
        Row numbers of the table.
    encoding : Encoding
        Measured on the rows learned from.
    """
    columns = list(encoding.layout.numbers)
    if not len(rows) or not columns:
        return None
    values = table.features[rows][:, columns].astype(np.float64)
    distances = np.nan_to_num(np.abs(values - encoding.scaling.mean) / encoding.scaling.std)
    place, column = np.unravel_index(distances.argmax(), distances.shape)
    distance = distances[place, column]
    if distance < FAR:
        return None
    where = f"column {table.feature_names[columns[column]]!r}, row {rows[place] + 1}"
    return (
        f"{where}: {values[place, column]:g} is {distance:.0e} standard deviations from the mean of the rows "
        "learned from; fill it, or drop the row"
    )
