"""``dropserve train``: its options, and what it says.

The top of this module imports the standard library only, in `signals` and `terminal` too: every
``dropserve`` command loads it, also where the libraries that training needs are not installed.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dropserve_models.signals import exit_status, stopping
from dropserve_models.terminal import tell

if TYPE_CHECKING:
    from dropserve_models.calibration import CalibrationRecord
    from dropserve_models.training.crossvalidate import CrossValidation
    from dropserve_models.training.job import Outcome
    from dropserve_models.training.search.options import SearchOptions

_PREFIX = "dropserve train:"

# Options of dropserve_models.training.config.TrainingConfig, which checks their values.
_OPTIONS = (
    ("task", "TASK", "auto, regression, binary or multiclass (default: auto, told from the target)"),
    ("hidden", "N[,N...]", "units of each hidden layer, or none (default: 100,100)"),
    ("activation", "NAME", "relu, leaky_relu, tanh, gelu or silu (default: relu)"),
    ("norm", "NAME", "of the hidden layers: none, batch or layer (default: none)"),
    ("input-drop", "P", "drop rate on the input, in [0, 1) (default: 0)"),
    ("hidden-drop", "P[,P...]", "drop rate on each hidden layer, or one for all (default: 0.1)"),
    (
        "embedding-width",
        "W",
        "units of categorical columns' embeddings, 0 for one-hot (default: by the number of categories)",
    ),
    (
        "level-off",
        "L",
        "standard deviations from the mean that numbers level off at, 0 for none (default: 5.0)",
    ),
    ("max-norm", "C", "largest norm of a hidden unit's incoming weights (default: no limit)"),
    ("weight-decay", "L", "weight decay (default: 0.1 for adamw, 0.0001 for adam and sgd)"),
    ("optimizer", "NAME", "adamw, adam or sgd (default: adamw)"),
    ("momentum", "M", "momentum of sgd (default: 0.9)"),
    ("learning-rate", "R", "highest learning rate (default: 0.005; 0.05 for sgd)"),
    ("schedule", "NAME", "onecycle, cosine, exponential, step, plateau or constant (default: onecycle)"),
    ("decay", "F", "factor of the schedules exponential, step and plateau (default: 0.5)"),
    ("decay-epochs", "N", "epochs from one such factor to the next (default: 20)"),
    ("loss", "NAME", "of regression: beta_nll (mean and noise) or mse (mean alone) (default: beta_nll)"),
    ("batch-size", "N", "rows a step (default: 64)"),
    ("epochs", "N", "most passes over the training rows (default: 200)"),
    ("patience", "N", "stop after N epochs without a better validation loss (default: 50)"),
    ("label-smoothing", "S", "of classifiers: part of each label spread over all classes (default: 0.0)"),
    (
        "class-weights",
        "W[,W...]",
        "of classifiers: none, balanced, or one for each class (default: none)",
    ),
    ("validation", "F", "fraction of the rows held out; 0 to learn from all of them (default: 0.2)"),
    (
        "calibration",
        "F",
        "a fraction of the rows to hold out for it, cv, none, or auto: cv for few rows (default: auto)",
    ),
    ("seed", "N", "the same seed gives the same weights (default: 0)"),
)
_FLAGS = (
    ("residual", "hidden layers as wide as the one before add its values to their own"),
    ("nesterov", "Nesterov momentum, of sgd"),
)


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the ``train`` command."""
    parser = subparsers.add_parser(
        "train",
        help="train a dropout MLP on a table and publish it",
        description="Train a dropout MLP on a table and publish it as the next version of a model.",
    )
    parser.add_argument(
        "--data",
        required=True,
        metavar="FILE|sklearn:NAME",
        help="a .csv, .tsv, .parquet or .npz (X, y) file, or a data set bundled with scikit-learn",
    )
    parser.add_argument(
        "--target",
        action="append",
        default=[],
        metavar="COLUMN",
        help="column to predict, by name or number (1: the first, -1: the last); repeat it, or separate "
        "names by commas, for several",
    )
    parser.add_argument("--name", required=True, metavar="MODEL", help="name of the model")
    parser.add_argument("--repository", required=True, metavar="DIR", help="folder to publish to")
    parser.add_argument(
        "--no-header", action="store_true", help="the file's first line is data; columns are column_1, ..."
    )
    parser.add_argument(
        "--categorical",
        action="append",
        default=[],
        metavar="COLUMN",
        help="column whose numbers name categories, by name or number; repeat it, or separate names "
        "by commas, for several (columns of text are categories anyway)",
    )
    parser.add_argument(
        "--config", metavar="FILE.toml", help="training options from a file; flags win over it"
    )
    run_options = parser.add_argument_group("the run")
    run_options.add_argument(
        "--cv",
        type=int,
        default=0,
        metavar="K",
        help="measure the recipe by K-fold cross-validation before the model is trained on all rows",
    )
    run_options.add_argument(
        "--repeats", type=int, default=1, metavar="R", help="of the cross-validation (default: 1)"
    )
    run_options.add_argument(
        "--checkpoint",
        metavar="DIR",
        help="keep the state of the run there, of the search too; the same command, run again after a kill, "
        "goes on from it",
    )
    run_options.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to train (default: auto)"
    )
    search_options = parser.add_argument_group(
        "search",
        "Choose drop rates, weight decay, max-norm, learning rate, layers, epochs; options given are kept.",
    )
    search_options.add_argument(
        "--search", type=float, metavar="SECONDS", help="search for as long, then train with what was found"
    )
    search_options.add_argument(
        "--search-trials",
        type=int,
        metavar="N",
        help="search among as many settings; without --search the same seed then finds the same ones",
    )
    search_options.add_argument(
        "--search-metric",
        metavar="NAME",
        help="go by log_likelihood, rmse or accuracy, of Monte Carlo predictions (default: log_likelihood)",
    )
    options = parser.add_argument_group("training options")
    for name, metavar, text in _OPTIONS:
        # Values are kept as text: the configuration checks flags and files alike, in one line each.
        options.add_argument(f"--{name}", default=argparse.SUPPRESS, metavar=metavar, help=text)
    for name, text in _FLAGS:
        options.add_argument(f"--{name}", action="store_true", default=argparse.SUPPRESS, help=text)
    parser.set_defaults(run=run, extra="train")


def run(args: argparse.Namespace) -> int:
    """Run ``dropserve train``; the exit status.

    Returns
    -------
    int
        0; 2 for a usage or data error, 1 for a failure (one line on stderr each); 130 when interrupted, or
        128 and the number of the signal.
    """
    try:
        with stopping():
            return _train(args)
    except KeyboardInterrupt as interrupt:
        hint = "; run the same command again to go on" if args.checkpoint else ""
        _tell(f"interrupted; nothing was published{hint}")
        return exit_status(interrupt)


def _train(args: argparse.Namespace) -> int:
    # Read once, when torch is loaded: its threads then sleep instead of spin while they wait for each
    # other, which on a busy machine makes a step ten times faster.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from dropserve_models.errors import CheckpointError, ConfigError, DataError, DeviceError, ModelsError
    from dropserve_models.training.config import TrainingConfig, read_toml
    from dropserve_models.training.job import Job
    from dropserve_models.training.trainer import train

    def warn(message: str) -> None:
        _tell(f"warning: {message}")

    try:
        options = read_toml(args.config) if args.config else {}
        options |= _given(args)
        searching = _searching(args)
        if searching is not None:
            options.setdefault("validation", 0.0)
        job = Job(
            data=args.data,
            name=args.name,
            repository=Path(args.repository),
            targets=tuple(args.target),
            categorical=tuple(args.categorical),
            header=not args.no_header,
            config=TrainingConfig.from_mapping(options),
            folds=args.cv,
            repeats=args.repeats,
            checkpoint=Path(args.checkpoint) if args.checkpoint else None,
            device=args.device,
            search=searching,
        )
        outcome = train(job, terminal=sys.stderr, warn=warn)
    except ModelsError as error:
        _tell(str(error))
        return 2 if isinstance(error, DataError | ConfigError | DeviceError | CheckpointError) else 1
    print(_summary(args, outcome))
    return 0


def _tell(line: str) -> None:
    tell(f"{_PREFIX} {line}")


def _given(args: argparse.Namespace) -> dict[str, Any]:
    names = [name.replace("-", "_") for name, *_ in (*_OPTIONS, *_FLAGS)]
    return {name: getattr(args, name) for name in names if hasattr(args, name)}


def _searching(args: argparse.Namespace) -> SearchOptions | None:
    from dropserve_models.errors import ConfigError
    from dropserve_models.training.search.options import SearchOptions

    if args.search is None and args.search_trials is None:
        if args.search_metric is not None:
            raise ConfigError("--search-metric is for a search: give --search SECONDS or --search-trials N")
        return None
    return SearchOptions(args.search, args.search_trials, args.search_metric)


def _summary(args: argparse.Namespace, outcome: Outcome) -> str:
    goal, history = outcome.goal, outcome.history
    names = ", ".join(goal.output_names[:10]) + (", ..." if len(goal.output_names) > 10 else "")
    kept = f"; kept epoch {history.best.number}" if history.best else ""
    figures = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in outcome.metrics.items())
    held_out = f"{len(outcome.split.validation)} rows: {figures}" if figures else "no rows were held out"
    rows, features = outcome.table.features.shape
    lines = [
        f"data        {args.data}: {rows} rows, {features} features{_kinds(outcome)}",
        f"task        {goal.task} ({names}): {goal.reason}",
        f"trained     {len(history.epochs)} epochs in {outcome.seconds:.1f} s{kept}",
        f"validation  {held_out}",
        f"calibrated  {_calibration(outcome.calibration)}",
        f"published   {outcome.folder}",
        f"next        dropserve serve --repository {args.repository}",
    ]
    if outcome.found is not None:
        from dropserve_models.training.search.report import report

        lines[2:2] = report(outcome.found)
    if outcome.cross_validation is not None:
        lines[2:2] = _cross_validation(outcome.cross_validation, outcome.cross_validation_seconds)
    return "\n".join(lines)


def _kinds(outcome: Outcome) -> str:
    """How many features are not plain numbers."""
    columns = outcome.table.columns
    counts = {
        "categorical": sum(column.kind == "category" for column in columns),
        "with missing values": sum(column.accepts_missing for column in columns),
    }
    told = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    return f" ({told})" if told else ""


def _calibration(found: CalibrationRecord | None) -> str:
    if found is None:
        return "no: there will be no intervals"
    rows = "held out" if found.method == "split" else "left out by folds"
    fitted = ""
    if found.temperature is not None:
        fitted = f"; temperature {found.temperature:.3g}"
    elif found.noise_scale is not None:
        fitted = f"; noise variance times {', '.join(f'{scale:.3g}' for scale in found.noise_scale)}"
    return f"on {found.rows} rows {rows}{fitted}"


def _cross_validation(found: CrossValidation, seconds: float) -> list[str]:
    repeats = f" x {found.repeats} repeats" if found.repeats > 1 else ""
    lines = [f"cross-validation: {found.folds} folds{repeats} in {seconds:.1f} s"]
    table: list[tuple[str, ...]] = [("", "mean", "s.e.", "sd of folds", "sd of repeats")]
    for name, figure in found.figures().items():
        values = (figure.mean, figure.standard_error, figure.fold_std, figure.repeat_std)
        shown = ("-" if value is None or math.isnan(value) else f"{value:.4f}" for value in values)
        table.append((name.replace("_", " "), *shown))
    width = max(len(row[0]) for row in table)
    for name, *cells in table:
        lines.append(f"  {name:{width}}" + "".join(f"  {cell:>13}" for cell in cells))
    return lines
