"""The folds that settings are tried on, and trying them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from dropserve_models.inference.deterministic import Device
from dropserve_models.training.batches import Index
from dropserve_models.training.checkpoint import CheckpointFolder
from dropserve_models.training.config import TrainingConfig
from dropserve_models.training.crossvalidate import make_folds
from dropserve_models.training.fit import Epoch
from dropserve_models.training.pipelines import Fit, Fitted, fit_pipelines, layout_of
from dropserve_models.training.randomness import derive
from dropserve_models.training.search.board import Trial
from dropserve_models.training.search.calibrated import calibrated
from dropserve_models.training.search.scoring import monte_carlo_scores
from dropserve_models.training.split import Split
from dropserve_models.training.table import Table
from dropserve_models.training.task import Goal

PASSES = 64
"""Of a Monte Carlo prediction that a setting is judged by."""

MOST_REPEATS = 4

OVERHEAD = 300_000
"""Multiplications that launching a step's operations takes as long as, for each member."""

WARM_UP_EPOCHS = 3
"""Not to be judged by: the first ones take longer."""

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Ground:
    """A table, and its rows dealt into folds: all that a search may see.

    Attributes
    ----------
    parts : list of (ndarray, ndarray)
        Training and held-out rows of every fold, repeat by repeat.
    folds : int
        Of a repeat.
    first : int
        Folds that say whether a setting deserves the others.
    calibrates : bool
        Whether settings are judged as they would be published with a factor that was fitted beside them.
    """

    table: Table
    goal: Goal
    parts: list[tuple[Index, Index]]
    folds: int
    first: int
    seed: np.random.SeedSequence
    device: Device
    calibrates: bool = False

    @classmethod
    def lay_out(
        cls,
        table: Table,
        goal: Goal,
        rows: Index,
        seed: np.random.SeedSequence,
        device: Device,
        *,
        calibrates: bool = False,
    ) -> Ground:
        """Deal the rows: the fewer there are, the more folds and repeats are needed and affordable."""
        folds, first, repeats = min(5, len(rows)), 2, MOST_REPEATS
        if len(rows) > 2000:
            folds, first, repeats = 4, 1, 1
        fold_seed, seed = derive(seed, 2)
        parts = make_folds(goal, folds, repeats, np.random.default_rng(fold_seed), rows)
        if len(rows) > 20_000:
            parts, folds, first = parts[:1], 1, 1
        return cls(table, goal, parts, folds, first, seed, device, calibrates)

    def work(self, config: TrainingConfig) -> float:
        """What a fit takes, in multiplications."""
        rows = len(self.parts[0][0])
        steps = math.ceil(rows / config.batch_size)
        sizes = (layout_of(self.table, config).inputs, *config.hidden, 2 * len(self.goal.output_names))
        parameters = sum(inputs * outputs for inputs, outputs in pairwise(sizes))
        return float(config.epochs * (3 * rows * parameters + steps * OVERHEAD))

    def fit(
        self,
        trials: Sequence[Trial],
        folds: Sequence[int],
        leave: Callable[[int, int], int],
        checkpoints: CheckpointFolder | None = None,
        stage: str = "search",
    ) -> dict[tuple[int, int], Fitted]:
        """Fit trials of one shape on folds; those that went through all epochs, by place and fold.

        Parameters
        ----------
        leave : callable
            (epochs done, trials left) -> how many of them go on, the first ones.
        checkpoints, stage
            See `fit_pipelines`.
        """
        pairs = [(place, fold) for place in range(len(trials)) for fold in folds]
        seeds = derive(self.seed, len(self.parts))
        fits = []
        for place, fold in pairs:
            training = self.parts[fold][0]
            # Nothing is held out within the fold: the recipe that is published runs all its epochs.
            fits.append(Fit(Split(training, training[:0]), trials[place].config, seeds[fold]))
        staying = len(trials)

        def on_epoch(epochs: Mapping[int, Epoch]) -> Collection[int]:
            nonlocal staying
            if epochs:
                staying = min(staying, leave(next(iter(epochs.values())).number, staying))
            return [number for number in epochs if pairs[number][0] >= staying]

        fitted = fit_pipelines(
            self.table,
            self.goal,
            fits,
            device=self.device,
            on_epoch=on_epoch,
            checkpoints=checkpoints,
            stage=stage,
        )
        done: dict[tuple[int, int], Fitted] = {}
        for pair, one in zip(pairs, fitted, strict=True):
            if one.history.diverged is not None:
                trials[pair[0]].diverged = True
            elif len(one.history.epochs) == one.fit.config.epochs:
                done[pair] = one
        return done

    def score(
        self, fitted: Mapping[tuple[int, int], Fitted], *, on_training_rows: bool = False
    ) -> dict[tuple[int, int], dict[str, float]]:
        """Monte Carlo metrics of what `fit` gave, on the rows held out or on those learned from."""
        if not fitted:
            return {}
        (seed,) = derive(
            np.random.SeedSequence(self.seed.entropy, spawn_key=(*self.seed.spawn_key, 1 << 20)), 1
        )
        models = list(fitted.values())
        if self.calibrates and not on_training_rows:  # there, it shows how well it thinks it is doing
            held_out = [self.parts[fold][1] for _, fold in fitted]
            models = calibrated(models, held_out, [place for place, _ in fitted], self.table, self.goal, seed)
        rows = [self.parts[fold][0 if on_training_rows else 1] for _, fold in fitted]
        scores = monte_carlo_scores(models, rows, self.table, self.goal, PASSES, seed)
        return dict(zip(fitted, scores, strict=True))


class Pace:
    """Lets as many trials go on as will be done in time.

    Parameters
    ----------
    epochs : int
        That each trial takes.
    deadline : float
        Of `clock`.

    Attributes
    ----------
    a_trial : float
        Seconds that all epochs of one take, as far as is known.
    """

    def __init__(self, epochs: int, deadline: float, clock: Clock = time.monotonic) -> None:
        self._epochs = epochs
        self._deadline = deadline
        self._clock = clock
        self._started = clock()
        self._spent = 0.0
        self.a_trial = 0.0

    def __call__(self, done: int, trials: int) -> int:
        """How many trials, of those left after `done` epochs, can go through all of theirs."""
        if self._deadline == math.inf:
            return trials
        self._spent += trials
        now = self._clock()
        left = self._deadline - now
        epoch = (now - self._started) / self._spent
        self.a_trial = epoch * self._epochs
        if left > 0.0 and done < WARM_UP_EPOCHS:
            return trials
        rest = epoch * (self._epochs - done)
        return trials if rest <= 0.0 else max(0, min(trials, int(left / rest)))
