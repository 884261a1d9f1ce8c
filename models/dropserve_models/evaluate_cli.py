"""``dropserve evaluate``: its options, and what it reads and writes.

The top of this module imports the standard library only, in `signals` and `terminal` too: every
``dropserve`` command loads it, also where the libraries that evaluation needs are not installed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dropserve_models.signals import exit_status, stopping
from dropserve_models.terminal import StatusLine, tell

if TYPE_CHECKING:
    import polars as pl

    from dropserve_models.evaluation.report import Report
    from dropserve_models.manifest import Manifest
    from dropserve_models.prediction import ModelInfo
    from dropserve_models.training.labelled import Labelled

_PREFIX = "dropserve evaluate:"
_FACTOR = 3.0


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the ``evaluate`` command."""
    parser = subparsers.add_parser(
        "evaluate",
        help="measure a model, and what its error bars are worth, on rows whose truth is known",
        description="Predict rows whose truth is known, without and with Monte Carlo dropout, and report how "
        "good the predictions and their uncertainty are.",
    )
    parser.add_argument(
        "artifact",
        metavar="ARTIFACT",
        help="REPOSITORY/MODEL/VERSION, or REPOSITORY/MODEL for its latest version",
    )
    parser.add_argument(
        "--data",
        required=True,
        metavar="FILE|sklearn:NAME",
        help="rows the model was not trained on: a .csv, .tsv, .parquet or .npz file, or a set bundled with "
        "scikit-learn",
    )
    parser.add_argument(
        "--target",
        action="append",
        default=[],
        metavar="COLUMN",
        help="column that holds the truth (default: of the name that the model predicts; for a classifier "
        "the only column that is no feature)",
    )
    parser.add_argument("--passes", type=int, default=100, metavar="N", help="of Monte Carlo (default: 100)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the passes (default: 0)")
    parser.add_argument(
        "--coverage",
        default="0.5,0.8,0.9,0.95",
        metavar="C[,C...]",
        help="of the intervals to be checked (default: 0.5,0.8,0.9,0.95)",
    )
    parser.add_argument(
        "--ood",
        metavar="FILE|shuffled|scaled[:K]",
        help="rows out of distribution that the uncertainty should tell: a file with the same features; or "
        "the data with every column shuffled, or K times (default: 3) as far from its mean",
    )
    parser.add_argument("--baseline", metavar="ARTIFACT", help="another model, compared on the same rows")
    parser.add_argument("--json", metavar="FILE", help="write the report as JSON")
    parser.add_argument("--html", metavar="FILE", help="write the report as one page with pictures")
    parser.add_argument(
        "--no-header", action="store_true", help="the files' first line is data; columns are column_1, ..."
    )
    parser.set_defaults(run=run, extra="train")


def run(args: argparse.Namespace) -> int:
    """Run ``dropserve evaluate``; the exit status.

    Returns
    -------
    int
        0; 2 for a usage, data or artifact error, 1 for a failure, one line on stderr each; 130 when
        interrupted, or 128 and the number of the signal.
    """
    from dropserve_models.errors import ModelsError, ReportError

    try:
        with stopping():
            print(_evaluate(args))
    except ReportError as error:
        tell(f"{_PREFIX} {error}")
        return 1
    except ModelsError as error:
        tell(f"{_PREFIX} {error}")
        return 2
    except KeyboardInterrupt as interrupt:
        tell(f"{_PREFIX} interrupted; nothing was written")
        return exit_status(interrupt)
    return 0


def _evaluate(args: argparse.Namespace) -> str:
    from dropserve_models.artifact import open_artifact
    from dropserve_models.evaluation.evaluator import check_comparable, evaluate
    from dropserve_models.evaluation.text import as_text
    from dropserve_models.evaluation.writing import check_writable, write_whole
    from dropserve_models.listing import find_version
    from dropserve_models.model import load
    from dropserve_models.training.labelled import read_labelled

    coverages = _coverages(args.coverage)
    for path in (args.json, args.html):
        if path is not None:
            check_writable(path)
    folder = find_version(args.artifact)
    manifest = open_artifact(folder).manifest
    model = load(folder)
    baseline = None if args.baseline is None else load(find_version(args.baseline))
    infos = [model.info] if baseline is None else [model.info, baseline.info]
    if baseline is not None:
        check_comparable(model.info, baseline.info)
    labelled = read_labelled(args.data, infos, args.target, header=not args.no_header)
    strange, about = _strange(args, labelled, infos)
    with StatusLine(sys.stderr) as line:
        report = evaluate(
            model,
            labelled.features,
            labelled.truth,
            passes=args.passes,
            seed=args.seed,
            coverages=coverages,
            out_of_distribution=strange,
            baseline=baseline,
            on_rows=_counted(line),
        )
    report = replace(
        report,
        source=args.data,
        out_of_distribution=about,
        notes=(*_warnings(manifest, labelled), *report.notes),
    )
    if args.json is not None:
        write_whole(args.json, report.to_json())
    if args.html is not None:
        write_whole(args.html, _page(report, folder))
    return as_text(report)


def _page(report: Report, folder: Path) -> bytes:
    from dropserve_models.evaluation.learning import read_learning_curve
    from dropserve_models.evaluation.page import as_html

    return as_html(report, read_learning_curve(folder))


def _coverages(given: str) -> list[float]:
    from dropserve_models.errors import ConfigError

    try:
        coverages = [float(part) for part in given.split(",") if part.strip()]
    except ValueError:
        coverages = []
    if not coverages or not all(0.0 < coverage < 1.0 for coverage in coverages):
        raise ConfigError(f"--coverage is {given!r}: it should be shares within (0, 1), e.g. 0.5,0.9")
    return sorted(set(coverages))


def _strange(
    args: argparse.Namespace, labelled: Labelled, infos: list[ModelInfo]
) -> tuple[pl.DataFrame | None, str | None]:
    """Rows out of distribution, and what they are."""
    import polars as pl

    from dropserve_models.errors import ConfigError
    from dropserve_models.evaluation import strange
    from dropserve_models.training.labelled import read_rows

    if args.ood is None:
        return None, None
    kind, _, factor = args.ood.partition(":")
    columns = {series.name: series.to_numpy() for series in labelled.features}
    if args.ood == "shuffled":
        made = pl.DataFrame(strange.shuffled(columns, args.seed))
        return made, "the same rows, every column shuffled"
    if kind == "scaled":
        try:
            times = float(factor) if factor else _FACTOR
        except ValueError:
            times = 0.0
        if not 1.0 < times < float("inf"):
            raise ConfigError(f"--ood is {args.ood!r}: give a factor above 1, e.g. scaled:3")
        made = pl.DataFrame(strange.scaled(columns, times, labelled.numeric))
        return made, f"the same rows, {times:g} times as far from the mean"
    rows = read_rows(args.ood, infos, header=not args.no_header)
    return rows, f"{args.ood}: {rows.height} rows"


def _warnings(manifest: Manifest | None, labelled: Labelled) -> list[str]:
    if manifest is None or manifest.training is None:
        return []
    if manifest.training.data_fingerprint != labelled.table.fingerprint():
        return []
    return ["These are the very rows the model was trained on: the figures flatter it."]


def _counted(line: StatusLine) -> Callable[[int], None]:
    """Shows the rows done so far, told how many more are done."""
    done = 0

    def more(rows: int) -> None:
        nonlocal done
        done += rows
        line.show(f"{done:,} rows predicted")

    return more
