"""How good the error bars are, beside published figures.

Reads its data from --data FOLDER: uci_splits/NAME (Gal & Ghahramani's twenty splits of UCI tables),
tabular/sonar.csv and others, fashion_mnist. Settings are chosen by `dropserve train --search`'s own search on
training rows alone, bounded by trials; models are exported and asked for Monte Carlo predictions through
`dropserve_models.load`. Test rows are used once, for the figures printed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from benchmarks.report import option_parser
from benchmarks.uncertainty import fashion, sonar, temperature, uci, unseen
from benchmarks.uncertainty.effort import FULL, QUICK, Effort
from benchmarks.uncertainty.figures import Figures
from dropserve_models.errors import DataError

Case = Callable[[Figures, Path, Effort], None]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and report."""
    parser = option_parser("uncertainty", __doc__)
    parser.add_argument("--data", type=Path, metavar="FOLDER", required=True, help="where the tables are")
    parser.add_argument("--only", metavar="NAME[,NAME...]", help="some of the data sets")
    parser.add_argument("--threads", type=int, default=1, help="of torch; default: 1")
    parser.add_argument(
        "--trials", type=int, metavar="N", help=f"that a search takes; default: {FULL.trials}"
    )
    parser.add_argument(
        "--every-split",
        action="store_true",
        help="search on every split's own training rows, not the first's",
    )
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    cases: dict[str, Case] = {
        **uci.CASES,
        **sonar.CASES,
        **fashion.CASES,
        **unseen.CASES,
        **temperature.CASES,
    }
    chosen = list(cases) if options.only is None else options.only.split(",")
    unknown = [name for name in chosen if name not in cases]
    if unknown:
        parser.error(f"there is no {', '.join(unknown)}; there are: {', '.join(cases)}")
    if not options.data.is_dir():
        parser.error(f"{options.data} is not a folder")
    if options.trials is not None and options.trials < 1:
        parser.error(f"a search takes 1 trial at least, not {options.trials}")
    effort = (QUICK if options.quick else FULL).with_every_split(options.every_split)
    effort = effort.with_trials(options.trials)
    figures = Figures()
    for name in chosen:
        try:
            cases[name](figures, options.data, effort)
        except (OSError, DataError) as error:
            parser.error(f"{name}: {error}")
    figures.finish(options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
