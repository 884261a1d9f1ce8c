"""Messages: requests from plain values, plain values from answers. Pure, the core of both clients."""

from dropserve_client.wire.answer import join, prediction
from dropserve_client.wire.models import model_info, version_statuses
from dropserve_client.wire.options import Question, integer, named, question, with_seed
from dropserve_client.wire.request import (
    Limits,
    announcement,
    answers_per_row,
    predict_request,
    rows_per_request,
    split,
)

__all__ = [
    "Limits",
    "Question",
    "announcement",
    "answers_per_row",
    "integer",
    "join",
    "model_info",
    "named",
    "predict_request",
    "prediction",
    "question",
    "rows_per_request",
    "split",
    "version_statuses",
    "with_seed",
]
