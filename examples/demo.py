"""The whole path on real data: train, publish, serve, predict both ways, look at the metrics, stop.

Run by `make demo`. Everything goes to build/demo, which is emptied first.
"""

from __future__ import annotations

import shutil
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from local_server import CommandError, LocalServer, dropserve, serving
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_diabetes

from dropserve_client import Client, DropserveError

FloatArray: TypeAlias = NDArray[np.float64]

FOLDER = Path(__file__).resolve().parent.parent / "build" / "demo"
PASSES = 200
SHARES = (0.0, 0.5, 0.9, 0.97, 1.0)  # of the rows, ranked by their error bar
METRICS = (
    "dropserve_requests_total",
    "dropserve_rows_total",
    "dropserve_passes_total",
    "dropserve_model_info",
)


@dataclass(frozen=True)
class Example:
    """A bundled data set, and which of the model's outputs to show how."""

    name: str
    load: Callable[..., tuple[FloatArray, FloatArray]]
    shown: str
    column: int
    digits: int
    classes: tuple[str, ...] = ()

    def truth(self, y: float) -> str:
        """A target as people write it."""
        return self.classes[int(y)] if self.classes else f"{y:.0f}"


EXAMPLES = (
    Example("breast_cancer", load_breast_cancer, "probability of benign", 1, 3, ("malignant", "benign")),
    Example("diabetes", load_diabetes, "progression after a year", 0, 0),
)


def main() -> int:
    """Run the demo, and return an exit status."""
    started = time.monotonic()
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    repository = FOLDER / "repository"
    try:
        for example in EXAMPLES:
            heading(f"Train {example.name}")
            data = ["--data", f"sklearn:{example.name}", "--name", example.name]
            dropserve("train", *data, "--repository", repository, "--seed", "1")
        heading("Serve both")
        with serving(repository, FOLDER / "server.log") as server:
            print(f"gRPC on {server.address}, metrics on {server.metrics_url}")
            with Client(server.address) as client:
                for example in EXAMPLES:
                    show_predictions(client, example)
            show_metrics(server)
    except (CommandError, DropserveError, OSError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    heading("Done")
    print(f"The server stopped cleanly; {time.monotonic() - started:.0f} s in all. Models and log: {FOLDER}")
    return 0


def heading(text: str) -> None:
    """Start a section."""
    print(f"\n{text}\n{'-' * len(text)}", flush=True)


def show_predictions(client: Client, example: Example) -> None:
    """Predict every row without and with error bars, and print rows from the surest to the least sure."""
    X, y = example.load(return_X_y=True)
    far = X.mean(axis=0) + 8 * X.std(axis=0)
    X = np.vstack([X, far])
    truths = [*map(example.truth, y), "(far from all data)"]

    point = client.predict(example.name, X)
    bars = client.predict(example.name, X, passes=PASSES, seed=7)
    assert bars.std is not None

    surest_first = np.argsort(bars.std[: len(y), example.column])
    rows = surest_first[(np.array(SHARES) * (len(y) - 1)).astype(int)].tolist()
    columns = {"without dropout": point.mean, f"{PASSES} passes: mean": bars.mean, "± std": bars.std}
    if bars.aleatoric_variance is not None and bars.predictive_variance is not None:
        rows.append(len(y))
        columns["± std with noise"] = np.sqrt(bars.predictive_variance)

    heading(f"{example.name}: {example.shown}, from the surest row to the least sure")
    print(f"{'truth':>20}", *(f"{name:>18}" for name in columns))
    for row in rows:
        cells = (
            f"{'± ' if '±' in name else ''}{values[row, example.column]:.{example.digits}f}"
            for name, values in columns.items()
        )
        print(f"{truths[row]:>20}", *(f"{cell:>18}" for cell in cells))


def show_metrics(server: LocalServer) -> None:
    """Scrape the server as Prometheus would, and print some of what it says."""
    heading(f"Some of {server.metrics_url}")
    with urllib.request.urlopen(server.metrics_url, timeout=10) as answer:
        text = answer.read().decode()
    print("\n".join(line for line in text.splitlines() if line.startswith(METRICS)))


if __name__ == "__main__":
    sys.exit(main())
