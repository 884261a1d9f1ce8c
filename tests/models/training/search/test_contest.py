from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from dropserve_models.training.arrays import table_from_arrays
from dropserve_models.training.config import TrainingConfig
from dropserve_models.training.search.board import Trial
from dropserve_models.training.search.contest import Contest
from dropserve_models.training.search.ground import Ground
from dropserve_models.training.search.journal import Attempt, Journal
from dropserve_models.training.search.options import Budget, SearchOptions
from dropserve_models.training.search.space import Space
from dropserve_models.training.task import recognise

HARD = np.array([0.0, 30.0, -5.0, 10.0, 2.0])
"""How much each fold takes from every score: more than settings differ by."""

Score = Callable[[int, int], float]


def contest(score: Score, monkeypatch: pytest.MonkeyPatch, metric: str = "log_likelihood") -> Contest:
    """One on 50 rows, 5 folds, 2 of them first, in which (trial, fold) scores as given; -inf: it diverged."""

    def attempt(self: Contest, trials: Sequence[Trial], folds: Sequence[int], deadline: float) -> Attempt:
        scores = {
            (place, fold): {metric: score(trial.number, fold)}
            for place, trial in enumerate(trials)
            for fold in folds
        }
        diverged = {place for (place, _), one in scores.items() if one[metric] == -math.inf}
        return Attempt(
            {key: one for key, one in scores.items() if key[0] not in diverged}, {}, tuple(diverged), 0.0
        )

    monkeypatch.setattr(Contest, "_attempt", attempt)
    random = np.random.default_rng(0)
    table = table_from_arrays(random.normal(size=(50, 2)), random.normal(size=(50, 1)), ("a", "b"), ("y",))
    space = Space(TrainingConfig(hidden=(4,), epochs=2), {"hidden", "epochs"}, 40)
    ground = Ground.lay_out(table, recognise(table), np.arange(50), np.random.SeedSequence(0), "cpu")
    assert (ground.folds, ground.first) == (5, 2)
    made = Contest(
        ground,
        space,
        metric,
        Budget(SearchOptions(trials=20)),
        Journal(),
        lambda text: None,
    )
    made.enter([space.usual()] * 9)
    return made


def tried(contest: Contest, trials: Sequence[Trial]) -> dict[int, list[int]]:
    return {trial.number: sorted(trial.scores) for trial in trials}


def test_the_better_half_alone_goes_on_to_the_other_folds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trial n is worth n, so that of seven the last four go on."""
    made = contest(lambda trial, fold: trial - HARD[fold], monkeypatch)
    racing = made.trials[2:]
    made.race(racing, math.inf)
    assert tried(made, racing) == {n: [0, 1] for n in (2, 3, 4)} | {n: [0, 1, 2, 3, 4] for n in (5, 6, 7, 8)}
    assert made.eligible() == made.trials[5:]


def test_by_an_error_the_lower_half_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    made = contest(lambda trial, fold: 10.0 + trial + HARD[fold], monkeypatch, "rmse")
    made.race(made.trials[2:], math.inf)
    assert [trial.number for trial in made.eligible()] == [2, 3, 4, 5]


def test_what_diverges_is_given_up_and_takes_no_one_s_place(monkeypatch: pytest.MonkeyPatch) -> None:
    made = contest(lambda trial, fold: -math.inf if trial > 6 else trial - HARD[fold], monkeypatch)
    racing = made.trials[2:]
    made.race(racing, math.inf)
    assert [trial.number for trial in racing if trial.diverged] == [7, 8]
    assert [trial.number for trial in made.eligible()] == [4, 5, 6]  # three of the five that are left


def test_who_fails_late_is_given_up_too(monkeypatch: pytest.MonkeyPatch) -> None:
    made = contest(lambda trial, fold: -math.inf if (trial, fold) == (8, 4) else float(trial), monkeypatch)
    made.race(made.trials[2:], math.inf)
    assert made.trials[8].diverged
    assert [trial.number for trial in made.eligible()] == [5, 6, 7]
