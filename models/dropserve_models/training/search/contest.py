"""Settings tried against each other."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from dropserve_models.errors import ConfigError
from dropserve_models.training.config import TrainingConfig
from dropserve_models.training.search.board import Standing, Trial, standing
from dropserve_models.training.search.found import Scores
from dropserve_models.training.search.ground import Ground, Pace
from dropserve_models.training.search.journal import Attempt, Journal
from dropserve_models.training.search.metrics import SIGNS
from dropserve_models.training.search.options import Budget
from dropserve_models.training.search.space import Space
from dropserve_models.training.search.surrogate import Surrogate

FLEET_VALUES = 2**25
"""Of the tables that a fleet learns from, standardised for each of its fits."""


class Contest:
    """Trials, the folds they are tried on, and who is ahead.

    Attributes
    ----------
    trials : list of Trial
        In the order in which they were entered; the first is the baseline, which can't win.
    on_training : dict of int to dict
        The baseline's scores on the rows it learned from, by fold; known before anything can be chosen.
    """

    def __init__(
        self,
        ground: Ground,
        space: Space,
        metric: str,
        budget: Budget,
        journal: Journal,
        on_progress: Callable[[str], None],
    ) -> None:
        self.ground = ground
        self.space = space
        self.metric = metric
        self.budget = budget
        self.trials: list[Trial] = []
        self.on_training: Scores = {}
        self._journal = journal
        self._sign = SIGNS[metric]
        self._on_progress = on_progress
        self._seconds_a_work = 0.0
        self._seconds_a_trial = 0.0  # of the last fleet
        self._learned: tuple[int, Surrogate] | None = None

    def enter(self, configs: Iterable[TrainingConfig]) -> list[Trial]:
        """Add settings, to be tried."""
        entered = [Trial(len(self.trials) + place, config) for place, config in enumerate(configs)]
        self.trials += entered
        return entered

    def begin(self) -> None:
        """Try the first two, the baseline and the settings given, on a whole repeat.

        Raises
        ------
        ConfigError
            The time is too short for that, or training diverged.
        """
        for trial in self.trials[:2]:
            attempt = self._try([trial], range(self.ground.folds), self.budget.deadline())
            if trial.diverged:
                raise ConfigError(
                    f"training diverged with the options given: lower learning_rate (it is "
                    f"{trial.config.learning_rate:g})"
                )
            if attempt is None or not attempt.scores:
                raise ConfigError(
                    f"a search of {self.budget.seconds:g} seconds is too short for this table: the first two "
                    f"settings {self._time_of_two()}"
                )
            if attempt.on_training:
                self.on_training = {fold: one for (_, fold), one in attempt.on_training.items()}

    def _time_of_two(self) -> str:
        if not self._seconds_a_trial:
            return "could not be tried; give it more time"
        return f"take about {2.0 * self._seconds_a_trial:.2g} seconds; give it several times that"

    def race(self, trials: Sequence[Trial], deadline: float) -> None:
        """Try settings on the first folds, and the better half of them on the rest of the first repeat."""
        first, folds = self.ground.first, self.ground.folds
        share = first / (first + (folds - first) / 2.0)
        now = self.budget.clock()
        self.try_on(trials, range(first), now + share * (deadline - now))
        tried = [trial for trial in trials if trial.scores and not trial.diverged]
        if first == folds or not tried:
            return
        means = dict(zip([trial.number for trial in tried], self._means(tried), strict=True))
        better = sorted(tried, key=lambda trial: -means[trial.number])[: math.ceil(len(tried) / 2)]
        self.try_on(better, range(first, folds), deadline)

    def try_on(self, trials: Sequence[Trial], folds: Sequence[int], deadline: float) -> bool:
        """Fit and score settings on folds, shape by shape; whether anything was done by the deadline."""
        groups: dict[int, list[Trial]] = {}
        for trial in trials:
            groups.setdefault(self.space.shape_of(trial.config), []).append(trial)
        most = max(1, FLEET_VALUES // (self.ground.table.features.size * len(folds)))
        fleets = [
            group[start : start + most] for group in groups.values() for start in range(0, len(group), most)
        ]
        work = [sum(self.ground.work(trial.config) for trial in fleet) for fleet in fleets]
        anything = False
        for place, fleet in enumerate(fleets):
            now = self.budget.clock()
            share = work[place] / sum(work[place:])
            attempt = self._try(fleet, folds, now + share * (deadline - now))
            anything |= attempt is not None and bool(attempt.scores)
        return anything

    def _try(self, trials: Sequence[Trial], folds: Sequence[int], deadline: float) -> Attempt | None:
        """Fit and score settings of one shape; None where the time is over."""
        began = self.budget.clock()
        if began >= deadline:
            return None
        asked = [[[trial.number, trial.options] for trial in trials], list(folds)]
        attempt = self._journal.recall(asked) or self._attempt(trials, folds, deadline)
        for place in attempt.diverged:
            trials[place].diverged = True
        for (place, fold), scores in attempt.scores.items():
            trials[place].scores[fold] = scores
        self._seconds_a_trial = attempt.seconds_a_trial
        if attempt.scores:
            work = sum(self.ground.work(trials[place].config) for place, _ in attempt.scores)
            self._seconds_a_work = (self.budget.clock() - began) / work
        self._journal.keep(asked, attempt)
        return attempt

    def _attempt(self, trials: Sequence[Trial], folds: Sequence[int], deadline: float) -> Attempt:
        pace = Pace(trials[0].config.epochs, deadline, self._journal.now)

        def leave(done: int, left: int) -> int:
            self._tell()
            return pace(done, left)

        # Of a search in time, what was not done is done anew: what a setting takes is measured by it.
        checkpoints = self._journal.checkpoints if self.budget.seconds is None else None
        fitted = self.ground.fit(trials, folds, leave, checkpoints, self._journal.stage)
        baseline = trials[0] is self.trials[0]
        return Attempt(
            scores=self.ground.score(fitted),
            on_training=self.ground.score(fitted, on_training_rows=True) if baseline else {},
            diverged=tuple(place for place, trial in enumerate(trials) if trial.diverged),
            seconds_a_trial=pace.a_trial,
        )

    def cost(self, config: TrainingConfig) -> float:
        """Seconds that a race takes a setting, as far as is known; a moment at least."""
        folds = (self.ground.first + self.ground.folds) / 2.0
        return max(self._seconds_a_work * self.ground.work(config) * folds, 1e-3)

    def ranking(self) -> list[Trial]:
        """Settings tried on a whole repeat, or as many folds as any was, from the best expected on."""
        eligible = self.eligible()
        if not eligible:
            return []
        surrogate = self.surrogate()
        expected, _ = surrogate.posterior(self.space.coordinates([trial.config for trial in eligible]))
        order = np.argsort(-expected, kind="stable")
        return [eligible[place] for place in order]

    def eligible(self) -> list[Trial]:
        """Settings that were tried thoroughly enough to be chosen."""
        tried = [trial for trial in self.trials[1:] if trial.scores and not trial.diverged]
        return [trial for trial in tried if len(trial.scores) >= self.ground.folds] or tried

    def surrogate(self) -> Surrogate:
        """What all scores so far tell."""
        known = sum(len(trial.scores) + trial.diverged for trial in self.trials)
        if self._learned is None or self._learned[0] != known:
            tried = [trial for trial in self.trials[1:] if trial.scores or trial.diverged]
            coordinates = self.space.coordinates([trial.config for trial in tried])
            self._learned = known, Surrogate(coordinates, self._standing(tried))
        return self._learned[1]

    def profile(self, chosen: Trial, rates: Sequence[float]) -> list[tuple[float, float, float]]:
        """Drop rates of the hidden layers, the metric expected with them, else as chosen, and how surely."""
        if not any(axis.option == "hidden_drop" for axis in self.space.axes):
            return []
        configs = [chosen.config.model_copy(update={"hidden_drop": (rate,)}) for rate in rates]
        means, stds = self.surrogate().posterior(self.space.coordinates(configs))
        return [
            (rate, self._sign * float(m), float(s)) for rate, m, s in zip(rates, means, stds, strict=True)
        ]

    def _means(self, trials: Sequence[Trial]) -> NDArray[np.float64]:
        return self._standing(trials).means

    def _standing(self, trials: Sequence[Trial]) -> Standing:
        scores = np.full((len(trials), len(self.ground.parts)), math.nan)
        for place, trial in enumerate(trials):
            for fold, one in trial.scores.items():
                scores[place, fold] = self._sign * one[self.metric]
            if trial.diverged:
                scores[place, range(self.ground.first)] = -math.inf
        return standing(scores)

    def _tell(self) -> None:
        tried = [trial for trial in self.trials[1:] if trial.scores and not trial.diverged]
        if tried:
            name = self.metric.replace("_", " ")
            best = max(
                self._sign * np.mean([one[self.metric] for one in trial.scores.values()]) for trial in tried
            )
            self._on_progress(f"{len(tried)} settings tried, best {name} {self._sign * best:.4g}")
