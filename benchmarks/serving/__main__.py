"""What a request costs beside what gRPC in Python costs anyway, and what it takes to be there for it.

Parts, in this order; without names, all of them:

one-row     1-row requests a second and CPU time a request, beside a raw grpc.aio echo server
many-rows   rows a second of 64-row requests, beside a bare ONNX Runtime loop
latency     percentiles below the peak, and beside a flood of Monte Carlo requests
workers     what a second worker brings, beside what a second process brings the echo server
start       from the start of the process until it says SERVING
soak        memory after ten minutes of every kind of request, against that after the first
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.report import Report, option_parser
from benchmarks.serving import latency, many_rows, one_row, soak, start, workers
from benchmarks.serving.load import CONCURRENCY, LoadGenerator, load_generator

Part = Callable[[Report, Path], object]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and report."""
    parser = option_parser("serving", __doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help="what to measure")
    options = parser.parse_args(argv)
    known = _parts(options.quick)
    for part in options.parts:
        if part not in known:
            parser.error(f"there is no part {part!r}; there are {', '.join(known)}")
    report = Report("serving")
    for name, measure in known.items():
        if name in options.parts or not options.parts:
            with TemporaryDirectory() as folder:
                measure(report, Path(folder))
    print()
    report.finish(options.json)
    return 0


def _parts(quick: bool) -> Mapping[str, Part]:
    seconds, rounds = (1.5, 3) if quick else (4.0, 7)
    generate = load_generator()
    print(f"Load generator: {generate.name}; {CONCURRENCY} callers; {rounds} rounds of {seconds:g} s each.")

    def loaded(measure: Callable[[Report, Path, LoadGenerator, float, int], None]) -> Part:
        return lambda report, folder: measure(report, folder, generate, seconds, rounds)

    return {
        "one-row": loaded(one_row.measure),
        "many-rows": loaded(many_rows.measure),
        "latency": loaded(latency.measure),
        "workers": loaded(workers.measure),
        "start": partial(start.measure, rounds=rounds),
        "soak": partial(soak.measure, seconds=60.0 if quick else 600.0),
    }


if __name__ == "__main__":
    sys.exit(main())
