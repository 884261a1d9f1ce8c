"""The learning curve as a picture."""

from __future__ import annotations

import io

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dropserve_models.training.fit import History


def draw_learning_curve(history: History, title: str) -> bytes:
    """Loss on the training rows and, where there are any, loss and metric on the validation rows; PNG."""
    epochs = [epoch.number for epoch in history.epochs]
    held_out = [epoch for epoch in history.epochs if epoch.validation_loss is not None]
    figure = Figure(figsize=(7.0, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(
        2 if held_out else 1, 1, sharex=True, squeeze=False, height_ratios=(2, 1) if held_out else None
    )[:, 0]
    losses = panels[0]
    losses.plot(epochs, [epoch.loss for epoch in history.epochs], label="training (dropout on)")
    losses.set_ylabel("loss")
    losses.set_title(title)
    if held_out:
        numbers = [epoch.number for epoch in held_out]
        losses.plot(numbers, [epoch.validation_loss for epoch in held_out], label="validation")
        panels[1].plot(numbers, [epoch.score for epoch in held_out], color="C1")
        panels[1].set_ylabel({"r2": "R²"}.get(history.metric, history.metric))
    panels[-1].set_xlabel("epoch")
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    if history.best is not None:
        for axes in panels:
            axes.axvline(history.best.number, color="0.6", linestyle=":")
        losses.plot([], [], color="0.6", linestyle=":", label=f"kept: epoch {history.best.number}")
    losses.legend()
    for axes in panels:
        axes.grid(alpha=0.3)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()
