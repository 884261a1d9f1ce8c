"""What a search says on the terminal."""

from __future__ import annotations

import math

from dropserve_models.training.crossvalidate import Figure
from dropserve_models.training.search.board import OPTIONS
from dropserve_models.training.search.found import Found
from dropserve_models.training.search.metrics import SIGNS

_STOPPED = {
    "time": "time is up",
    "trials": "all trials done",
    "interrupted": "interrupted: the best so far is taken",
}

_VERDICTS = {
    "overfits": "it overfits",
    "underfits": "it underfits",
    "fits": "neither over- nor underfitting",
}


def report(found: Found) -> list[str]:
    """How a network without dropout does, what was tried, what was chosen, and why that drop rate."""
    name = found.metric.replace("_", " ")
    repeats = f" x {found.repeats} repeats" if found.repeats > 1 else ""
    chosen, baseline = found.chosen.scores, found.baseline.scores
    diverged = sum(trial.diverged for trial in found.trials)
    tried = f"{len(found.trials) - 1} settings" + (f" ({diverged} diverged)" if diverged else "")
    learned, held_out = found.figure(found.baseline_on_training), found.figure(baseline)
    verdict = _VERDICTS[found.verdict]
    said = [
        f"search: {tried}, {found.folds} folds{repeats}, {found.seconds:.1f} s; {_STOPPED[found.stopped]}",
        f"  without dropout  {name} {_show(held_out)} held out, {_show(learned)} learned from: {verdict}",
        f"  chosen           {name} {_show(found.figure(chosen))} held out, {_better(found)}",
        f"                   {settings(found)}",
    ]
    if found.profile:
        rates = "  ".join(f"{rate:g}: {mean:.3g}" for rate, mean, _ in found.profile)
        spread = sum(std for *_, std in found.profile) / len(found.profile)
        said.append(f"  hidden drop      {name} expected, all else as chosen (± {spread:.1g}): {rates}")
    return said


def settings(found: Found) -> str:
    """The chosen options, as the command line takes them, in one line."""
    shown = []
    for option in OPTIONS:
        value = getattr(found.config, option)
        if value is None:
            continue
        parts = value if isinstance(value, tuple) else (value,)
        text = ",".join(f"{part:g}" if isinstance(part, float) else str(part) for part in parts)
        shown.append(f"--{option.replace('_', '-')} {text or 'none'}")
    return " ".join(shown)


def _better(found: Found) -> str:
    gain = SIGNS[found.metric] * found.gain.mean
    error = "" if math.isnan(found.gain.standard_error) else f" ± {found.gain.standard_error:.2g}"
    return f"{'better' if gain >= 0.0 else 'worse'} by {abs(gain):.3g}{error}"


def _show(figure: Figure) -> str:
    error = figure.standard_error
    return f"{figure.mean:.4g}" + ("" if math.isnan(error) else f" ± {error:.2g}")
