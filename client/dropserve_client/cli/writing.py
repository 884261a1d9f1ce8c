"""Predictions into a file, by its extension; whole or not at all.

.csv and .tsv have a header; .json is ``{"model", "version", "passes", "rows": [{column: value}]}``; their
columns are those of `dropserve_client.cli.columns`. .npz has the arrays of the SDK's `Prediction` by name
(mean, variance, standard_error, ...), and output_names.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from dropserve_client.cli.columns import Columns, columns
from dropserve_client.errors import InputError
from dropserve_client.types import ModelInfo, Prediction


def check_output(path: Path) -> None:
    """Refuse a file that could not be written, before anything is computed."""
    if path.suffix.lower() not in _WRITERS:
        raise InputError(f"{path}: unknown kind of file; {', '.join(_WRITERS)} can be written")
    if not path.parent.is_dir():
        raise InputError(f"can't write {path}: there is no folder {path.parent}")


def write_prediction(path: Path, prediction: Prediction, info: ModelInfo, quantiles: Sequence[float]) -> None:
    """Write a file in the format of its extension.

    Raises
    ------
    InputError
        It can't be written; nothing is left behind then.
    """
    with _whole_or_nothing(path) as file:
        _WRITERS[path.suffix.lower()](file, prediction, info, quantiles)


def _write_delimited(file: BinaryIO, named: Columns, separator: str) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    writer = csv.writer(text, delimiter=separator, lineterminator="\n")
    writer.writerow(named)
    writer.writerows(zip(*(_shortest(values) for values in named.values()), strict=True))
    text.detach()


def _write_json(file: BinaryIO, prediction: Prediction, info: ModelInfo, quantiles: Sequence[float]) -> None:
    named = columns(prediction, info, quantiles)
    values = [
        cells if array.dtype.kind == "U" else [float(cell) for cell in cells]
        for array, cells in ((array, _shortest(array)) for array in named.values())
    ]
    document = {
        "model": prediction.model,
        "version": prediction.version,
        "passes": prediction.passes,
        "rows": [dict(zip(named, row, strict=True)) for row in zip(*values, strict=True)],
    }
    file.write(json.dumps(document, ensure_ascii=False, indent=1).encode() + b"\n")


def _write_npz(file: BinaryIO, prediction: Prediction, info: ModelInfo, quantiles: Sequence[float]) -> None:
    values = {field.name: getattr(prediction, field.name) for field in fields(prediction)}
    arrays: dict[str, Any] = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
    np.savez(file, output_names=np.array(info.output_names), **arrays)


def _shortest(values: NDArray[Any]) -> list[str]:
    """Every value in the fewest digits that give the same float32 again."""
    return [str(value) for value in values]


@contextmanager
def _whole_or_nothing(path: Path) -> Iterator[BinaryIO]:
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        try:
            with unfinished.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"can't write {path}: {error.strerror or error}") from error


_Writer = Callable[[BinaryIO, Prediction, ModelInfo, Sequence[float]], None]
_WRITERS: dict[str, _Writer] = {
    ".csv": lambda file, *what: _write_delimited(file, columns(*what), ","),
    ".tsv": lambda file, *what: _write_delimited(file, columns(*what), "\t"),
    ".json": _write_json,
    ".npz": _write_npz,
}
