"""What a search has seen, in order: a search that was killed sees the same again, and goes on.

All that a search does follows from its seed, the scores, and the readings of its clock. So it is begun anew
from the seed, and gets the scores and readings it had, without a fit, up to where the journal ends.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dropserve_models.errors import CheckpointError
from dropserve_models.training.checkpoint import CheckpointFolder

NAME = "search"

Scores = dict[str, float]


@dataclass(frozen=True, slots=True)
class Attempt:
    """What became of some settings on some folds.

    Attributes
    ----------
    scores, on_training : dict
        By (place among the settings, fold): every metric on the rows held out, and on those learned from
        where that was asked for. What diverged, or was given up for want of time, is not there.
    diverged : tuple of int
        Places.
    seconds_a_trial : float
        0 where it is not known.
    """

    scores: dict[tuple[int, int], Scores]
    on_training: dict[tuple[int, int], Scores]
    diverged: tuple[int, ...]
    seconds_a_trial: float

    def to_json(self) -> dict[str, Any]:
        """As plain lists and dicts; the other way round: `of_json`."""
        return {
            "scores": [[*key, one] for key, one in self.scores.items()],
            "on_training": [[*key, one] for key, one in self.on_training.items()],
            "diverged": list(self.diverged),
            "seconds_a_trial": self.seconds_a_trial,
        }

    @classmethod
    def of_json(cls, values: dict[str, Any]) -> Attempt:
        """What `to_json` was called on."""
        return cls(
            {(place, fold): one for place, fold, one in values["scores"]},
            {(place, fold): one for place, fold, one in values["on_training"]},
            tuple(values["diverged"]),
            values["seconds_a_trial"],
        )


class Journal:
    """The attempts of a search, on disk as soon as they are known, and its clock.

    Parameters
    ----------
    checkpoints : CheckpointFolder, optional
        Where it is kept, and read from; without, it is forgotten with the search.
    clock : callable
        Seconds.

    Attributes
    ----------
    checkpoints : CheckpointFolder or None
        For the fleets of an attempt, too; named by `stage`.

    Raises
    ------
    CheckpointError
        It can't be read, or is of another run.
    """

    def __init__(
        self, checkpoints: CheckpointFolder | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.checkpoints = checkpoints
        self._clock = clock
        self._checkpoint = None if checkpoints is None else checkpoints.open(NAME)
        self._attempts: list[tuple[Any, Attempt]] = []
        self._readings: list[float] = []
        self._seen = self._read = 0
        self._behind = 0.0
        if self._checkpoint is not None and (saved := self._checkpoint.load()) is not None:
            try:
                document = json.loads(saved["journal"].tobytes())
                self._readings = [float(reading) for reading in document["readings"]]
                self._attempts = [(asked, Attempt.of_json(found)) for asked, found in document["attempts"]]
            except (KeyError, TypeError, ValueError) as error:
                raise CheckpointError(
                    f"{self._checkpoint.path} is no checkpoint of a search, or damaged: remove it"
                ) from error

    def clock(self) -> float:
        """Seconds, by which the search decides; those of the search that was killed do not run on."""
        if self._read < len(self._readings):
            reading = self._readings[self._read]
            self._behind = self._clock() - reading
        else:
            reading = self.now()
            self._readings.append(reading)
        self._read += 1
        return reading

    def now(self) -> float:
        """Seconds, for what is not done again when its outcome is known."""
        return self._clock() - self._behind

    @property
    def stage(self) -> str:
        """Names the attempt that is made now."""
        return f"{NAME}-{self._seen + 1}"

    def recall(self, asked: Any) -> Attempt | None:
        """What became of that before, if it is what was asked next; None if it is to be made.

        Another processor may round otherwise, and the search then take another way: what comes after the
        place where it parted is forgotten.

        Parameters
        ----------
        asked : JSON
            All that the attempt depends on, the table and its folds aside.
        """
        if self._seen == len(self._attempts):
            return None
        known, attempt = self._attempts[self._seen]
        if known == asked:
            return attempt
        del self._attempts[self._seen :], self._readings[self._read :]
        self._discard(f"{NAME}-")
        return None

    def keep(self, asked: Any, attempt: Attempt) -> None:
        """Write down what came of it, where that is new.

        Raises
        ------
        CheckpointError
            The file system refuses.
        """
        stage = self.stage
        if self._seen == len(self._attempts):
            self._attempts.append((asked, attempt))
            self._save()
        self._seen += 1
        self._discard(f"{stage}-")

    def _save(self) -> None:
        if self._checkpoint is not None:
            attempts = [[asked, attempt.to_json()] for asked, attempt in self._attempts]
            text = json.dumps({"readings": self._readings, "attempts": attempts})
            self._checkpoint.save({"journal": np.frombuffer(text.encode(), np.uint8)})

    def _discard(self, start: str) -> None:
        if self.checkpoints is not None:
            self.checkpoints.discard(start)
