"""What a mode has accepted and not answered yet, and what it accepts on top."""

from __future__ import annotations

from collections.abc import Callable

from dropserve_server.errors import DeadlineTooShort, QueueFull
from dropserve_server.job import Demand, PredictionJob
from dropserve_server.large import SLICE_ROWS
from dropserve_server.returns import LONGEST, Returns

_SHARING = 8
"""Requests that are cut take turns; one more is taken where it shares with so many of its size. The SDK's
`predict_many` keeps as many under way, so that a caller alone on a server is not refused."""


class Backlog:
    """The work in flight in one mode: waiting, and being computed. For the event loop's thread.

    Parameters
    ----------
    mode : str
        As messages name it.
    max_rows : int
        Most rows in flight.
    max_seconds : float
        The longest that a request may be expected to wait.
    workers : callable
        How many computations go on at the same time, now.
    turn_seconds : float
        How long one request that is cut computes before the others have their turn, where it can pause.
    """

    def __init__(
        self,
        mode: str,
        max_rows: int,
        max_seconds: float,
        workers: Callable[[], int],
        turn_seconds: float,
    ) -> None:
        self._mode = mode
        self._max_rows = max_rows
        self._max_seconds = max_seconds
        self._workers = workers
        self._turn_seconds = turn_seconds
        self._seconds = 0.0
        self._cut: dict[PredictionJob, float] = {}  # and how long the turns of each are
        self._returns = Returns(LONGEST * max_seconds)
        self.rows = 0

    @property
    def wait_seconds(self) -> float:
        """How long a request that came now would wait for its turn, as far as is known."""
        return self._seconds / self._workers()

    def accept(self, job: PredictionJob, *, cut: bool = False) -> None:
        """Take a job in, which is `cut` so that others pass between its slices.

        Raises
        ------
        QueueFull, DeadlineTooShort
            See `check`.
        """
        job.expected_seconds = self.check(job, cut=cut)
        if cut:
            self._cut[job] = self._turn(job, job.expected_seconds)
        job.in_backlog = True
        self._seconds += self._holds_up(job)
        self.rows += job.rows

    def check(self, demand: Demand, *, cut: bool = False) -> float:
        """How long work is expected to take that would be accepted now; nothing is taken in.

        Raises
        ------
        QueueFull
            Its rows don't fit beside those in flight, or it would wait too long.
        DeadlineTooShort
            It would not be done in time.
        """
        # Small requests cost more a unit: what they cost must not keep a large one out.
        expected = demand.costs.share(demand.work)
        wait, longest = self.wait_seconds, self._max_seconds
        if cut:
            wait, longest = self._wait_with_turns(demand, expected), longest + _SHARING * expected
        if self.rows + demand.rows > self._max_rows:
            raise QueueFull(
                f"{self.rows} rows are in flight in {self._mode} mode and {demand.rows} more don't fit: "
                f"the server holds {self._max_rows}; try again later",
                self._returns.after(wait, expected / self._workers(), demand.queued),
            )
        # Whatever is expected, an idle server tries: this is how it learns of having become faster.
        if self.rows:
            if wait > longest:
                raise QueueFull(
                    f"the request would wait some {wait:.2g} s for others in {self._mode} mode, and the "
                    f"server lets it wait no longer than {longest:.3g} s; try again later",
                    self._returns.after(wait, expected / self._workers(), demand.queued),
                )
            if demand.queued + wait + expected > demand.deadline:
                raise DeadlineTooShort(
                    f"the answer would take some {wait + expected:.2g} s, most of it in the queue, and the "
                    f"caller allows {max(0.0, demand.deadline - demand.queued):.2g} s"
                )
        return expected

    def release(self, job: PredictionJob) -> bool:
        """A job is answered, or dropped; whether it was counted until now."""
        if not job.in_backlog:
            return False
        job.in_backlog = False
        self.rows -= job.rows
        self._seconds = max(0.0, self._seconds - self._holds_up(job)) if self.rows else 0.0
        self._cut.pop(job, None)
        return True

    def _holds_up(self, job: PredictionJob) -> float:
        """How long others wait because of a job, in seconds."""
        return self._cut.get(job, job.expected_seconds)

    def _turn(self, demand: Demand, seconds: float) -> float:
        """How long a request computes before others have their turn that is cut and takes so many seconds."""
        turn = self._turn_seconds
        if demand.options is None or demand.options.keeps_passes:  # a slice does not pause, however long
            turn = max(turn, demand.costs.share(demand.work * SLICE_ROWS // demand.rows))
        return min(turn, seconds)

    def _wait_with_turns(self, demand: Demand, seconds: float) -> float:
        """How much longer than `seconds` a request takes that takes turns with the others."""
        turn = self._turn(demand, seconds)
        turns = seconds / turn if turn else 1.0
        # One turn of each of them is counted already.
        shared = sum(min(job.expected_seconds, turns * each) - each for job, each in self._cut.items())
        return (self._seconds + shared) / self._workers()
