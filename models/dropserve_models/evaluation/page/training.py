"""How training went."""

from __future__ import annotations

from matplotlib.ticker import MaxNLocator

from dropserve_models.evaluation.learning import LearningCurve
from dropserve_models.evaluation.page.drawing import DASHES, FAINT, FIRST, SECOND, drawing
from dropserve_models.evaluation.page.picture import Picture
from dropserve_models.evaluation.text import shown

_START = 0.05
"""The share of the epochs whose loss may leave the picture: it falls from where chance has put it."""


def learning(curve: LearningCurve) -> Picture:
    """Loss and score by epoch."""
    epochs = curve.epochs
    heights = (2.0, 1.0) if curve.score is not None else (1.0,)
    with drawing("learning", heights=heights) as made:
        dashes = DASHES["deterministic"]
        made.axes.plot(epochs, curve.loss, color=FIRST, linestyle=dashes, label="training, dropout on")
        made.axes.set_ylabel("loss")
        losses = curve.loss[int(_START * len(epochs)) :]
        if curve.validation_loss is not None and curve.score is not None and made.below is not None:
            made.axes.plot(epochs, curve.validation_loss, color=SECOND, label="held out")
            made.below.plot(epochs, curve.score, color=SECOND)
            made.below.set_ylabel({"r2": "R²"}.get(curve.metric, shown(curve.metric)))
            losses = losses + curve.validation_loss[int(_START * len(epochs)) :]
        margin = 0.06 * (max(losses) - min(losses))
        if margin > 0.0:
            made.axes.set_ylim(min(losses) - margin, max(losses) + margin)
        if curve.kept is not None:
            made.axes.axvline(curve.kept, color=FAINT, linestyle=":", label=f"kept: epoch {curve.kept}")
            if made.below is not None:
                made.below.axvline(curve.kept, color=FAINT, linestyle=":")
        last = made.below or made.axes
        last.set_xlabel("epoch")
        last.xaxis.set_major_locator(MaxNLocator(integer=True))
    return Picture(
        "Learning curves",
        made.svg,
        "How training went, from the artifact. Held-out loss that rises while training loss falls is "
        "overfitting; two curves that still fall together at the end could have learned more.",
    )
