"""Draw the README's picture: a regression whose error bars widen where there is no data.

Trains on noisy points of a curve with a gap in them, starts a server, asks it for the whole axis with
Monte Carlo dropout, and draws what it answers. `python examples/error_bars.py [FILE.png]`
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from local_server import CommandError, dropserve, serving
from matplotlib.figure import Figure

from dropserve_client import Client, DropserveError

PICTURE = Path(__file__).resolve().parent.parent / "docs" / "error-bars.png"
PASSES = 1000
NOISE = 0.12
NETWORK = ["--hidden", "256,256", "--hidden-drop", "0.2", "--activation", "gelu"]
LENGTH = ["--epochs", "600", "--patience", "600"]


def main(picture: Path) -> int:
    """Train, serve, ask, draw; return an exit status."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.uniform(-5, -1, 150), rng.uniform(2, 5, 120)])
    y = x * np.sin(x) / 2.5 + rng.normal(0, NOISE, x.size)
    axis = np.linspace(-8, 8, 400)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data = folder / "waves.csv"
        np.savetxt(data, np.column_stack([x, y]), delimiter=",", header="x,y", comments="")
        try:
            arguments: list[str | Path] = [
                "--data",
                data,
                "--target",
                "y",
                "--name",
                "waves",
                "--repository",
                folder / "repository",
            ]
            dropserve("train", *arguments, *NETWORK, *LENGTH)
            with (
                serving(folder / "repository", folder / "server.log") as server,
                Client(server.address) as client,
            ):
                bars = client.predict("waves", axis[:, None], passes=PASSES, seed=1)
        except (CommandError, DropserveError) as error:
            print(f"error_bars: {error}", file=sys.stderr)
            return 1
    assert bars.std is not None
    assert bars.predictive_variance is not None
    draw(picture, x, y, axis, bars.mean[:, 0], bars.std[:, 0], np.sqrt(bars.predictive_variance[:, 0]))
    print(f"{picture} ({picture.stat().st_size / 1000:.0f} kB)")
    return 0


def draw(
    picture: Path,
    x: np.ndarray,
    y: np.ndarray,
    axis: np.ndarray,
    mean: np.ndarray,
    std: np.ndarray,
    predictive_std: np.ndarray,
) -> None:
    """Draw the data, the mean, and two standard deviations without and with the noise."""
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.add_subplot()
    for width, label, colour in (
        (predictive_std, "± 2 std, with the predicted noise", "#cfe0f3"),
        (std, "± 2 std over the passes", "#86b3e0"),
    ):
        axes.fill_between(axis, mean - 2 * width, mean + 2 * width, color=colour, label=label, linewidth=0)
    axes.plot(axis, mean, color="#1f4e8c", label=f"mean of {PASSES} dropout passes")
    axes.plot(x, y, ".", color="#333333", markersize=3, label="training data")
    axes.set(xlim=(axis[0], axis[-1]), ylim=(-5.5, 3), xlabel="x", ylabel="y")
    axes.legend(loc="lower center", frameon=False, fontsize="small")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(picture, dpi=110)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else PICTURE))
