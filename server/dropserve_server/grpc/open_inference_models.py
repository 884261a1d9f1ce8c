"""What the Open Inference Protocol tells about models: metadata, configuration, statistics, index. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any

from dropserve.inference import model_config_pb2 as config_pb2
from dropserve.inference import statistics_pb2
from dropserve.inference.service_pb2 import ModelMetadataResponse, RepositoryIndexResponse
from dropserve_models.prediction import MonteCarloOptions
from dropserve_server.grpc.open_inference_wire import INPUT, outputs_of
from dropserve_server.repository import Repository
from dropserve_server.served import ServedModel, State
from dropserve_server.tally import HistogramTally

_PLATFORM = "onnxruntime_onnx"
_READY, _UNAVAILABLE = "READY", "UNAVAILABLE"
_STATES: dict[State, tuple[str, str]] = {
    "serving": (_READY, ""),
    "loading": ("LOADING", ""),
    # Why is for administrators: it may name files.
    "failed": (_UNAVAILABLE, "it could not be loaded; the server's log says why"),
    "unloaded": (_UNAVAILABLE, "unloaded"),
}
_EVERYTHING = MonteCarloOptions(passes=2, quantiles=(0.5,), return_samples=True, mean_tolerance=1.0)


def write_metadata(served: ServedModel, versions: Sequence[str]) -> ModelMetadataResponse:
    """A model's description; `versions` are all that are served."""
    tensor = ModelMetadataResponse.TensorMetadata
    return ModelMetadataResponse(
        name=served.name,
        versions=versions,
        platform=_PLATFORM,
        inputs=[tensor(name=INPUT, datatype="FP32", shape=[-1, served.features])],
        outputs=[
            tensor(name=name, datatype="FP32", shape=[-1, served.outputs])
            for name in outputs_of(served.info, None)
        ],
        properties=_properties(served),
    )


def write_config(
    served: ServedModel, versions: Sequence[str], *, max_rows: int, workers: int
) -> config_pb2.ModelConfig:
    """A model's configuration, as Triton would have it."""
    on_cpu = served.info.provider == "CPUExecutionProvider"
    return config_pb2.ModelConfig(
        name=served.name,
        platform=_PLATFORM,
        backend="onnxruntime",
        version_policy=config_pb2.ModelVersionPolicy(
            specific=config_pb2.ModelVersionPolicy.Specific(versions=map(int, versions))
        ),
        max_batch_size=max_rows,
        input=[config_pb2.ModelInput(name=INPUT, data_type=config_pb2.TYPE_FP32, dims=[served.features])],
        output=[
            config_pb2.ModelOutput(name=name, data_type=config_pb2.TYPE_FP32, dims=[served.outputs])
            for name in outputs_of(served.info, None)
        ],
        instance_group=[
            config_pb2.ModelInstanceGroup(
                name=served.info.provider,
                kind=config_pb2.ModelInstanceGroup.KIND_CPU
                if on_cpu
                else config_pb2.ModelInstanceGroup.KIND_GPU,
                count=workers,
            )
        ],
        default_model_filename="model.onnx",
        parameters={
            name: config_pb2.ModelParameter(string_value=value) for name, value in _properties(served).items()
        },
        model_transaction_policy=config_pb2.ModelTransactionPolicy(decoupled=False),
    )


def write_statistics(served: ServedModel) -> statistics_pb2.ModelStatistics:
    """What one version has answered since it was loaded."""
    metrics = served.metrics
    modes = (metrics.deterministic, metrics.monte_carlo)
    computed = _duration(mode.compute_duration for mode in modes)
    # perf_analyzer wants the three compute counts to be the same.
    within = statistics_pb2.StatisticDuration(count=computed.count)
    failed = statistics_pb2.StatisticDuration(
        count=metrics.failures, ns=_nanoseconds(metrics.failure_seconds)
    )
    return statistics_pb2.ModelStatistics(
        name=served.name,
        version=served.version,
        last_inference=int(1000 * metrics.latest),
        inference_count=sum(mode.rows.value for mode in modes),
        execution_count=computed.count,
        inference_stats=statistics_pb2.InferStatistics(
            success=_duration(mode.duration for mode in modes),
            fail=failed,
            queue=_duration(mode.queue_duration for mode in modes),
            compute_input=within,
            compute_infer=computed,
            compute_output=within,
        ),
    )


def write_index(
    repository: Repository, serving: Callable[[str], bool | None], *, ready: bool
) -> RepositoryIndexResponse:
    """Every model's versions and their states, by name; only the ready ones where that is asked.

    `serving` tells of a model whether its health is SERVING; while draining, that of none is.
    """
    entry = RepositoryIndexResponse.ModelIndex
    models = []
    for status in repository.statuses():
        state, reason = _STATES[status.state]
        if state == _READY and not serving(status.name):
            state, reason = _UNAVAILABLE, "the server is draining"
        models.append(entry(name=status.name, version=str(status.version), state=state, reason=reason))
    listed = {model.name for model in models}
    for names, (state, reason) in (
        (repository.awaited, _STATES["loading"]),
        (repository.failed, _STATES["failed"]),
    ):
        models += [entry(name=name, state=state, reason=reason) for name in sorted(names - listed)]
    return RepositoryIndexResponse(models=[model for model in models if model.state == _READY or not ready])


def _properties(served: ServedModel) -> dict[str, str]:
    info, unavailable = served.info, served.model.monte_carlo_unavailable
    plain = outputs_of(info, None)
    error_bars = [name for name in outputs_of(info, _EVERYTHING) if name not in plain]
    intervals = outputs_of(info, None, 0.5)
    facts: dict[str, Any] = {
        "task": info.task,
        "feature_names": info.feature_names,
        "output_names": info.output_names,
        "drop_rates": info.drop_rates,
        "error_bar_outputs": [] if unavailable else error_bars,
        "error_bars_unavailable": unavailable,
        "interval_outputs": [name for name in intervals if name not in plain] if info.calibrated else [],
    }
    if info.columns:
        facts["columns"] = [asdict(column) for column in info.columns]
    return {name: json.dumps(fact, ensure_ascii=False) for name, fact in facts.items()}


def _duration(tallies: Iterable[HistogramTally]) -> statistics_pb2.StatisticDuration:
    tallies = list(tallies)
    return statistics_pb2.StatisticDuration(
        count=sum(tally.count for tally in tallies), ns=_nanoseconds(sum(tally.sum for tally in tallies))
    )


def _nanoseconds(seconds: float) -> int:
    return int(1e9 * seconds)
