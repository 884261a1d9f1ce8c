"""The learning curve as a picture."""

from __future__ import annotations

import io

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dropserve_models.training.fit import History


def draw_learning_curve(history: History, title: str) -> bytes:
    """Loss on the training and the validation rows, and the metric, by epoch; PNG."""
    epochs = [epoch.number for epoch in history.epochs]
    figure = Figure(figsize=(7.0, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    losses, scores = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    losses.plot(epochs, [epoch.loss for epoch in history.epochs], label="training (dropout on)")
    losses.plot(epochs, [epoch.validation_loss for epoch in history.epochs], label="validation")
    losses.set_ylabel("loss")
    losses.set_title(title)
    scores.plot(epochs, [epoch.score for epoch in history.epochs], color="C1")
    scores.set_ylabel({"r2": "R²"}.get(history.metric, history.metric))
    scores.set_xlabel("epoch")
    scores.xaxis.set_major_locator(MaxNLocator(integer=True))
    if history.best is not None:
        for axes in (losses, scores):
            axes.axvline(history.best.number, color="0.6", linestyle=":")
        losses.plot([], [], color="0.6", linestyle=":", label=f"kept: epoch {history.best.number}")
    losses.legend()
    for axes in (losses, scores):
        axes.grid(alpha=0.3)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()
