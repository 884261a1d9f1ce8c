"""The search: without dropout first, then settings all over, near the best, and a last comparison."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection

import numpy as np
from scipy.stats import qmc
from threadpoolctl import threadpool_limits

from dropserve_models.errors import ConfigError
from dropserve_models.inference.deterministic import Device
from dropserve_models.training.batches import Index
from dropserve_models.training.calibrate import resolve
from dropserve_models.training.checkpoint import CheckpointFolder
from dropserve_models.training.config import TrainingConfig
from dropserve_models.training.randomness import derive
from dropserve_models.training.search.contest import Contest
from dropserve_models.training.search.found import Found, Stop
from dropserve_models.training.search.ground import Ground
from dropserve_models.training.search.journal import Journal
from dropserve_models.training.search.metrics import choose_metric
from dropserve_models.training.search.options import EXPLORE, REFINE, Budget, SearchOptions
from dropserve_models.training.search.space import Space
from dropserve_models.training.table import Table
from dropserve_models.training.task import Goal

FEWEST_A_SHAPE = 4
MOST_A_ROUND = 24
ROUNDS = 4
"""Of refining, at least: what a round's scores tell, the next one goes by."""

MOST_EXPLORED = 96
MOST_TRIALS = 400
"""More settings than that add nothing to a smooth model of their scores; repeats do."""

POOL = 384
MOVED, STEP, JUMPING = 0.5, 0.12, 0.1
"""Which part of its options a setting near a good one has other than that, by how much of their axes, and
which part it has anywhere: an option is switched off by a jump, and the rest must not change with it."""

FINALISTS = 8
"""Settings that meet on new folds; half as many on each further repeat."""

PROFILE = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)


def search(
    table: Table,
    goal: Goal,
    config: TrainingConfig,
    options: SearchOptions,
    seed: np.random.SeedSequence,
    *,
    rows: Index | None = None,
    given: Collection[str] | None = None,
    device: Device = "auto",
    on_progress: Callable[[str], None] = lambda text: None,
    checkpoints: CheckpointFolder | None = None,
) -> Found:
    """Choose drop rates, weight decay, max-norm, learning rate, width, depth and epochs on folds of the rows.

    Interrupted (KeyboardInterrupt), it ends with the best so far, if there is one.

    Parameters
    ----------
    config : TrainingConfig
        The options that are kept, and where the ranges of the others lie.
    rows : ndarray, optional
        All that may be seen, ascending; all of the table's by default.
    given : collection of str, optional
        Options that are kept as they are in `config`; by default those it was made with.
    on_progress : callable
        Told, often, how far the search is.
    checkpoints : CheckpointFolder, optional
        Where every score is kept as soon as it is known: the same search, begun again after it was killed,
        goes on from there. What it took until then is not taken again from `options.seconds`.

    Raises
    ------
    ConfigError
        Nothing is left to choose, the metric is not one of the task's, there are too few rows, or the time
        is too short for a single setting.
    CheckpointError
        A checkpoint can't be read or written, or is of another run.
    """
    journal = Journal(checkpoints)
    budget = Budget(options, journal.clock)
    metric = choose_metric(options.metric, goal, config)
    if config.schedule == "plateau":
        raise ConfigError(
            "a search runs every setting to its last epoch; schedule plateau goes by a validation loss: "
            "give another, e.g. onecycle"
        )
    rows = np.arange(table.rows) if rows is None else rows
    ground_seed, seed = derive(seed, 2)
    method = resolve(config.calibration, len(rows))
    calibrates = method == "cv" or (method != "none" and config.validation > 0.0)
    ground = Ground.lay_out(table, goal, rows, ground_seed, device, calibrates=calibrates)
    given = config.given if given is None else given
    space = Space(config.model_copy(update={"validation": 0.0}), given, len(ground.parts[0][0]))
    run = _Search(Contest(ground, space, metric, budget, journal, on_progress), np.random.default_rng(seed))
    stopped: Stop = "interrupted"
    try:
        # The matrices of some hundred trials: on a busy machine, BLAS's threads wait for each other.
        with threadpool_limits(1, user_api="blas"):
            run.without_dropout()
            run.explore()
            run.reshape()
            run.refine()
            run.compare_finalists()
        stopped = budget.bound
    except KeyboardInterrupt:
        if not run.contest.eligible():
            raise
    return run.found(stopped)


class _Search:
    def __init__(self, contest: Contest, random: np.random.Generator) -> None:
        self.contest = contest
        self._space = contest.space
        self._budget = contest.budget
        self._random = random

    def without_dropout(self) -> None:
        """The baseline, on both sides of the gap, and beside it the drop rates that were given."""
        usual = self._space.usual()
        self.contest.enter([usual.model_copy(update={"input_drop": 0.0, "hidden_drop": (0.0,)}), usual])
        self.contest.begin()

    def explore(self) -> None:
        """Recipes from elsewhere, then points that fill the space, in as many shapes as there is time for."""
        left = self._budget.left(EXPLORE)
        counts = []
        for shapes in range(self._space.explored, 0, -1):
            cost = float(np.mean([self.contest.cost(self._space.example(shape)) for shape in range(shapes)]))
            count = min(self._budget.trials(EXPLORE, 0), MOST_EXPLORED, int(min(left / cost, MOST_EXPLORED)))
            counts.append((count, shapes))
            if count >= FEWEST_A_SHAPE * shapes:
                break
        count, shapes = counts[-1]
        if count < 1 or not self._space.dimensions:
            return
        configs = self._space.recipes(shapes)[:count]
        sobol = qmc.Sobol(self._space.dimensions, rng=self._random)
        points = sobol.random_base2(math.ceil(math.log2(count)))[: count - len(configs)]
        configs += [self._space.at(place % shapes, point) for place, point in enumerate(points)]
        entered = self.contest.enter(configs)
        self.contest.race(entered, self._budget.deadline(EXPLORE))

    def reshape(self) -> None:
        """The best so far in the other shapes: what is wider, or takes longer, may want the same options."""
        best = self.contest.ranking()[0].config
        shapes, own = range(len(self._space.shapes)), self._space.shape_of(best)
        configs = [self._space.at(shape, self._space.point(best)) for shape in shapes if shape != own]
        configs = configs[: self._left() // 3]
        if configs:
            self.contest.race(self.contest.enter(configs), self._budget.deadline(REFINE))

    def refine(self) -> None:
        """Points that may be the best, as far as the scores so far tell, round by round."""
        most = min(MOST_A_ROUND, math.ceil(self._left() / ROUNDS))
        while len(self.contest.trials) < MOST_TRIALS:
            count = min(most, self._left())
            if count < 1:
                return
            surrogate = self.contest.surrogate()
            pool = self._pool()
            if not pool:
                return
            places = surrogate.promising(self._space.coordinates(pool), count, self._random)
            entered = self.contest.enter([pool[place] for place in places])
            self.contest.race(entered, self._budget.deadline(REFINE))

    def _left(self) -> int:
        """How many settings there are trials, and time, for."""
        cost = self.contest.cost(self.contest.ranking()[0].config)
        in_time = int(min(self._budget.left(REFINE) / cost, MOST_TRIALS))
        return max(0, min(self._budget.trials(1.0, len(self.contest.trials) - 2), in_time))

    def _pool(self) -> list[TrainingConfig]:
        """Anywhere in the space, and near the best; nothing that was tried."""
        space, random = self._space, self._random
        shapes = list(range(len(space.shapes)))
        pool = [
            space.at(int(random.choice(shapes)), random.random(space.dimensions)) for _ in range(POOL // 4)
        ]
        best = self.contest.ranking()[:FINALISTS]
        for number in range(POOL - len(pool)):
            trial = best[number % len(best)]
            shape = space.shape_of(trial.config)
            if random.random() < 0.25:
                shape = int(random.choice(shapes))
            near = space.point(trial.config)
            moved = np.where(random.random(near.shape) < MOVED, random.normal(0.0, STEP, near.shape), 0.0)
            jumps = random.random(near.shape) < JUMPING
            near = np.where(jumps, random.random(near.shape), np.clip(near + moved, 0.0, 1.0))
            pool.append(space.at(shape, near))
        tried = {trial.config for trial in self.contest.trials}
        return [config for config in dict.fromkeys(pool) if config not in tried]

    def compare_finalists(self) -> None:
        """The best few on folds of further repeats, fewer and fewer, as long as there is time."""
        ground, count = self.contest.ground, FINALISTS
        for repeat in range(1, len(ground.parts) // ground.folds):
            finalists = self.contest.ranking()[:count]
            folds = range(repeat * ground.folds, (repeat + 1) * ground.folds)
            if len(finalists) < 2 or not self.contest.try_on(finalists, folds, self._budget.deadline()):
                return
            count = max(2, count // 2)

    def found(self, stopped: Stop) -> Found:
        """The setting with the best expectation, and what was learned on the way."""
        contest = self.contest
        chosen = contest.ranking()[0]
        tried = [fold for trial in contest.trials for fold in trial.scores]
        return Found(
            config=chosen.config,
            metric=contest.metric,
            chosen=chosen,
            baseline=contest.trials[0],
            baseline_on_training=contest.on_training,
            profile=contest.profile(chosen, PROFILE),
            trials=[trial for trial in contest.trials if trial.scores or trial.diverged],
            folds=contest.ground.folds,
            repeats=max(tried) // contest.ground.folds + 1,
            stopped=stopped,
            seconds=self._budget.spent(),
        )
