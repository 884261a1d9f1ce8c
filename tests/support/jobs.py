"""Work for the server's lanes, without a server."""

from __future__ import annotations

import numpy as np

from dropserve_models.prediction import FloatArray, MonteCarloOptions
from dropserve_server.job import PredictionJob
from dropserve_server.metrics import Metrics
from dropserve_server.served import ServedModel
from support.fake_model import FakeModel

NEVER = float("inf")


def serve(model: FakeModel, metrics: Metrics | None = None) -> ServedModel:
    """The fake as the repository would hold it."""
    info = model.info
    return ServedModel(model, (metrics or Metrics()).of_model(info.name, str(info.version)))


def some_rows(count: int, first: float = 0.0) -> FloatArray:
    """Distinct finite rows [count, 3]."""
    return (first + np.arange(count * 3, dtype=np.float32)).reshape(count, 3)


def job(
    served: ServedModel,
    rows: int | FloatArray = 1,
    options: MonteCarloOptions | None = None,
    deadline: float = NEVER,
) -> PredictionJob:
    """A job; call it in an event loop."""
    features = some_rows(rows) if isinstance(rows, int) else rows
    return PredictionJob(served, features, options, deadline)


def answer_of(features: FloatArray) -> FloatArray:
    """What the fake says to these rows."""
    sums = features.sum(axis=1, keepdims=True)
    return np.hstack([sums, sums + 1])
