"""Plain values from what a server says of its models."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from dropserve.v1 import model_pb2
from dropserve_client.types import Column, ColumnKind, ModelInfo, Task, VersionState, VersionStatus

_TASKS: Final[dict[int, Task]] = {
    model_pb2.TASK_REGRESSION: "regression",
    model_pb2.TASK_BINARY: "binary",
    model_pb2.TASK_MULTICLASS: "multiclass",
}
_KINDS: Final[dict[int, ColumnKind]] = {
    model_pb2.COLUMN_KIND_NUMBER: "number",
    model_pb2.COLUMN_KIND_CATEGORY: "category",
}
_STATES: Final[dict[int, VersionState]] = {
    model_pb2.VERSION_STATE_LOADING: "loading",
    model_pb2.VERSION_STATE_SERVING: "serving",
    model_pb2.VERSION_STATE_FAILED: "failed",
    model_pb2.VERSION_STATE_UNLOADED: "unloaded",
}


def model_info(message: model_pb2.ModelInfo) -> ModelInfo:
    """What a server says about a model."""
    return ModelInfo(
        name=message.name,
        version=message.version,
        is_default=message.is_default,
        task=_TASKS.get(message.task, "unspecified"),
        feature_names=tuple(message.feature_names),
        output_names=tuple(message.output_names),
        drop_rates=tuple(message.drop_rates),
        monte_carlo_unavailable=message.monte_carlo_unavailable or None,
        predicts_noise=message.predicts_noise,
        provider=message.provider,
        columns=tuple(
            Column(_KINDS.get(column.kind, "unspecified"), tuple(column.categories), column.accepts_missing)
            for column in message.columns
        ),
        calibrated=message.calibrated,
    )


def version_statuses(messages: Iterable[model_pb2.VersionStatus]) -> list[VersionStatus]:
    """How versions stand, as a server says."""
    return [
        VersionStatus(
            message.name,
            message.version,
            _STATES.get(message.state, "unspecified"),
            message.reason,
            message.is_default,
        )
        for message in messages
    ]
