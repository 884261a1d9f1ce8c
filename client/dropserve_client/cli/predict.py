"""`dropserve predict`: a file of features in, predictions with error bars out."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dropserve_client.cli.connection import add_connection_options, connect, telling_errors
from dropserve_client.cli.text import table

if TYPE_CHECKING:
    from dropserve_client import ModelInfo, Prediction

_LINES_AROUND = 5
"""Lines of the terminal that are not rows: header, notes, prompt."""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "predict",
        help="predict the rows of a file",
        description="Predict the rows of a file; --passes asks for error bars by Monte Carlo dropout.",
    )
    parser.add_argument("model", metavar="MODEL", help="the model's name")
    parser.add_argument(
        "--input",
        required=True,
        metavar="FILE",
        help=".csv, .tsv, .npz (array X) or .parquet, columns matched by name; - reads CSV or TSV from stdin",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help=".csv, .tsv, .json or .npz (default: a table on the terminal)",
    )
    parser.add_argument(
        "--interval",
        type=float,
        metavar="C",
        help="coverage of a calibrated interval, or set of classes, to give with each row, e.g. .9",
    )
    parser.add_argument("--version", default="", metavar="V", help="version of the model (the latest)")
    group = parser.add_argument_group("error bars")
    group.add_argument("--passes", type=int, metavar="N", help="stochastic dropout passes, e.g. 100")
    group.add_argument("--seed", type=int, metavar="S", help="fixes the masks: the same answer every time")
    group.add_argument(
        "--quantiles",
        type=_numbers,
        default=(),
        metavar="Q,Q,...",
        help="quantiles over the passes, e.g. .05,.95",
    )
    for what in ("mean", "std"):
        group.add_argument(
            f"--{what}-tolerance",
            type=float,
            metavar="T",
            help=f"stop before N passes, row by row, once the {what} is known to T standard deviations",
        )
    group.add_argument("--masks", choices=["stratified", "independent"], help="how masks relate (stratified)")
    add_connection_options(parser)
    parser.set_defaults(run=telling_errors(run), extra=None)


def run(arguments: argparse.Namespace) -> int:
    """Predict, and print or write."""
    from dropserve_client import InputError
    from dropserve_client.cli.reading import read_features
    from dropserve_client.cli.writing import check_output, write_prediction

    for option in ("seed", "quantiles", "masks", "mean_tolerance", "std_tolerance"):
        if arguments.passes is None and getattr(arguments, option) not in (None, ()):
            raise InputError(f"--{option.replace('_', '-')} needs --passes, the number of Monte Carlo passes")
    if arguments.output is not None:
        check_output(arguments.output)
    with connect(arguments) as client:
        info = client.get_model(arguments.model, version=arguments.version)
        prediction = client.predict(
            arguments.model,
            read_features(arguments.input, info.feature_names, info.columns),
            version=info.version,
            passes=arguments.passes,
            seed=arguments.seed,
            quantiles=arguments.quantiles,
            masks=arguments.masks,
            mean_tolerance=arguments.mean_tolerance,
            std_tolerance=arguments.std_tolerance,
            interval=arguments.interval,
        )
    if arguments.output is None:
        print(_screenful(prediction, info, arguments.quantiles, arguments.interval))
    else:
        write_prediction(arguments.output, prediction, info, arguments.quantiles)
        rows = len(prediction.mean)
        print(f"{rows} rows predicted by {info.name} version {info.version}, in {arguments.output}")
    return 0


def _screenful(
    prediction: Prediction, info: ModelInfo, quantiles: Sequence[float], interval: float | None
) -> str:
    """The table as far as the terminal is high; all of it where the output is no terminal."""
    from dropserve_client.cli.columns import is_classifier

    rows = len(prediction.mean)
    shown = rows
    if sys.stdout.isatty():
        shown = min(rows, max(1, shutil.get_terminal_size().lines - _LINES_AROUND))
    header, *lines = _cells(prediction, info, quantiles, shown)
    notes = []
    if shown < rows:
        notes.append(f"... {rows - shown} more rows: --output FILE writes them all.")
    if prediction.passes:
        notes.append(f"± is the standard deviation over {prediction.passes} dropout passes.")
    if prediction.aleatoric_variance is not None:
        notes.append("aleatoric_std is the standard deviation of the noise that the model predicts.")
    if interval is not None:
        holds = "set holds the class" if is_classifier(info) else "interval holds the target"
        notes.append(f"{holds} in {100 * interval:g} % of the rows.")
    numbers = [column for column, name in enumerate(header) if name not in ("label", "set")]
    return "\n".join([table(header, lines, right=numbers), *notes])


def _cells(
    prediction: Prediction, info: ModelInfo, quantiles: Sequence[float], shown: int
) -> list[tuple[str, ...]]:
    from dropserve_client.cli.columns import columns, is_classifier, sets

    named = {name: values[:shown] for name, values in columns(prediction, info, quantiles).items()}
    picked: dict[str, list[str]] = {"row": [str(row) for row in range(1, shown + 1)]}
    if is_classifier(info):
        picked["label"] = [str(label) for label in named["label"]]
        best = prediction.mean[:shown].argmax(axis=1)
        stds = prediction.std
        picked["probability"] = [
            _measured(prediction.mean[row, column], None if stds is None else stds[row, column], ".3f")
            for row, column in enumerate(best)
        ]
        if "predictive_entropy" in named:
            picked["entropy"] = [f"{value:.3f}" for value in named["predictive_entropy"]]
        if prediction.prediction_set is not None:
            picked["set"] = sets(prediction, info)[:shown]
    else:
        for name in info.output_names:
            stds = named.get(f"{name}_std")
            picked[name] = [
                _measured(value, None if stds is None else stds[row]) for row, value in enumerate(named[name])
            ]
            for column, values in named.items():
                if column.startswith(f"{name}_q") or column == f"{name}_aleatoric_std":
                    picked[column] = [f"{value:.4g}" for value in values]
            if prediction.interval_lower is not None:
                ends = zip(named[f"{name}_lower"], named[f"{name}_upper"], strict=True)
                picked[f"{name}_interval"] = [f"[{lower:.4g}, {upper:.4g}]" for lower, upper in ends]
    return [tuple(picked), *zip(*picked.values(), strict=True)]


def _measured(value: float, std: float | None, digits: str = ".4g") -> str:
    return (
        f"{value:{digits}}"
        if std is None
        else f"{value:{digits}} ± {std:{'.2g' if digits == '.4g' else digits}}"
    )


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers such as .05,.5,.95") from None
