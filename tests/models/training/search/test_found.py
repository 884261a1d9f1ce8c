from __future__ import annotations

import pytest

from dropserve_models.training.config import TrainingConfig
from dropserve_models.training.search.board import Trial
from dropserve_models.training.search.found import Found
from dropserve_models.training.search.report import report

NOISE = [0.25, -0.125, 0.0, -0.25, 0.125]  # as floats hold it: differences are exact


def scores(mean: float, metric: str) -> dict[int, dict[str, float]]:
    return {fold: {metric: mean + noise} for fold, noise in enumerate(NOISE)}


def found(
    on_training: float, held_out: float, chosen: float, metric: str = "log_likelihood", wobble: float = 0.0
) -> Found:
    """Means of the baseline on both sides, and of the setting chosen, which goes up and down by `wobble`."""
    baseline = Trial(0, TrainingConfig(), scores(held_out, metric))
    best = Trial(1, TrainingConfig(), scores(chosen, metric))
    best.scores[0][metric] += wobble
    best.scores[1][metric] -= wobble
    learned = scores(on_training, metric)
    return Found(best.config, metric, best, baseline, learned, [], [baseline, best], 5, 1, "trials", 1.0)


NEITHER = "neither over- nor underfitting"


@pytest.mark.parametrize(
    ("made", "verdict", "said", "beside"),
    [
        (found(-0.5, -1.0, -0.75), "overfits", "it overfits", "better by 0.25 ± 0"),
        (found(-0.9375, -1.0, -0.75), "overfits", "it overfits", "better by 0.25 ± 0"),  # little, but surely
        (found(-1.0, -1.0, -0.75), "underfits", "it underfits", "better by 0.25 ± 0"),
        (found(-1.5, -1.0, -0.75), "underfits", "it underfits", "better by 0.25 ± 0"),
        (found(-1.0, -1.0, -1.0), "fits", NEITHER, "better by 0 ± 0"),
        (found(-1.0, -1.0, -1.5), "fits", NEITHER, "worse by 0.5 ± 0"),
        # The standard error of the gain is sqrt((1/5 + 1/4) 2 .5^2 / 4) = .24: .25 is too little to tell.
        (found(-1.0, -1.0, -0.75, wobble=0.5), "fits", NEITHER, "better by 0.25 ± 0.24"),
        (found(-1.0, -1.0, -0.5, wobble=0.5), "underfits", "it underfits", "better by 0.5 ± 0.24"),
        (found(2.0, 3.0, 2.5, "rmse"), "overfits", "it overfits", "better by 0.5 ± 0"),
        (found(3.0, 3.0, 2.5, "rmse"), "underfits", "it underfits", "better by 0.5 ± 0"),
        (found(3.0, 3.0, 3.5, "rmse"), "fits", NEITHER, "worse by 0.5 ± 0"),
    ],
)
def test_what_is_said_of_a_network_without_dropout(made: Found, verdict: str, said: str, beside: str) -> None:
    assert made.verdict == verdict
    assert made.record().verdict == verdict
    without, chosen = report(made)[1:3]
    assert without.startswith("  without dropout  ")
    assert without.endswith(f" learned from: {said}")
    assert chosen.endswith(f" held out, {beside}")
    assert f'"verdict": "{verdict}"' in made.to_json().decode()
