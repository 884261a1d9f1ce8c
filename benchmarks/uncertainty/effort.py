"""How thoroughly to measure."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Effort:
    """What a run takes.

    Attributes
    ----------
    trials : int
        Settings that a search tries.
    every_split : bool
        Whether each split's settings are searched for on its own training rows. Otherwise those found on the
        training rows of the first are used for all.
    splits, repeats : int
        Of the UCI tables; of sonar's 10-fold cross-validation.
    folds : int
        Of the cross-validation of tables that no one tuned for, and of the part on calibration.
    passes : int
        Of a Monte Carlo prediction.
    epochs : int or None
        Of every fit; None for as many as the recipe or the search says.
    """

    trials: int
    splits: int
    repeats: int
    folds: int
    passes: int
    epochs: int | None = None
    every_split: bool = False

    def with_every_split(self, every_split: bool) -> Effort:
        """The same, searching on every split or not."""
        return replace(self, every_split=every_split)

    def with_trials(self, trials: int | None) -> Effort:
        """The same, searching among so many settings, if a number is given."""
        return self if trials is None else replace(self, trials=trials)


FULL = Effort(trials=60, splits=20, repeats=10, folds=5, passes=1000)
QUICK = Effort(trials=3, splits=3, repeats=1, folds=2, passes=100, epochs=10)
