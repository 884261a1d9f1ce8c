"""How one prediction request ended: what its log line and its trace are made of."""

from __future__ import annotations

from dataclasses import dataclass

import grpc

from dropserve_server.metrics import UNKNOWN, Mode
from dropserve_server.predictor import PredictionJob
from dropserve_server.served import ServedModel


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request, once it is over.

    Attributes
    ----------
    code : grpc.StatusCode
        What it was answered with.
    mode : str
    request_id : str
        As its caller chose it, cut to the length that is allowed.
    started, finished : float
        Its arrival and its end, in seconds on `perf_counter`'s clock.
    served : ServedModel or None
        Whom it was for, where that is known.
    job : PredictionJob or None
        Its work, where that was done.
    error : BaseException or None
        Why it failed.
    """

    code: grpc.StatusCode
    mode: Mode
    request_id: str
    started: float
    finished: float
    served: ServedModel | None
    job: PredictionJob | None
    error: BaseException | None = None

    @property
    def model(self) -> str:
        """The model's name, never one that a caller made up."""
        return self.served.name if self.served else UNKNOWN

    @property
    def version(self) -> str:
        """The model's version."""
        return self.served.version if self.served else UNKNOWN

    @property
    def seconds(self) -> float:
        """From arrival to end."""
        return self.finished - self.started

    @property
    def passes(self) -> int:
        """Stochastic passes computed; 0 in deterministic mode, and where nothing was."""
        return self.job.result.passes if self.job is not None and self.job.result is not None else 0
