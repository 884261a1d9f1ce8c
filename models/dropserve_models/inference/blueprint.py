"""What is known of a model before its first Monte Carlo request: its graph, read without torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from dropserve_models.artifact import Artifact
from dropserve_models.calibration import CalibrationRecord
from dropserve_models.errors import ArtifactError, MonteCarloUnavailable
from dropserve_models.inference.compile import compile_prefix, compile_program
from dropserve_models.inference.deterministic import Device, Session, first_line
from dropserve_models.inference.graph import split
from dropserve_models.inference.program import Program
from dropserve_models.prediction import ModelInfo, Task

NOISE = "noise_variance"
"""The graph output that holds the noise variance of a heteroscedastic model."""
_PREDICTIONS = ("mean", "probabilities")

_ROWS = 2  # to try a graph with: one row does not tell whether the outputs follow the rows


@dataclass(frozen=True, slots=True)
class Blueprint:
    """A verified model.

    Attributes
    ----------
    info : ModelInfo
    session : Session
        The whole graph.
    heads : tuple of str
        The graph outputs that are answered: the prediction and, where there is one, the noise variance.
    prefix : Session or None
        What comes before the first Dropout; None where nothing does.
    opening : Program or None
        The prefix once more, read like what comes after; None where it can't be.
    program : Program or None
        What comes after; None where it can't be run.
    monte_carlo_unavailable : str or None
        Why `program` is None.
    calibration : CalibrationRecord or None
    """

    info: ModelInfo
    session: Session
    heads: tuple[str, ...]
    prefix: Session | None
    opening: Program | None
    program: Program | None
    monte_carlo_unavailable: str | None
    calibration: CalibrationRecord | None = None


def draw_up(artifact: Artifact, device: Device, threads: int | None) -> Blueprint:
    """Read an artifact's graph, run it once, and split it.

    Raises
    ------
    ArtifactError
        The graph is malformed, does not fit its manifest, or can't be run.
    DeviceError
        See `Session`.
    """
    try:
        model = onnx.load_from_string(artifact.model_bytes)
    except DecodeError as error:
        raise ArtifactError(f"{artifact.folder}: model.onnx is not an ONNX model: {error}") from None
    session = Session(artifact.model_bytes, device, threads)
    manifest = artifact.manifest
    features = session.features or (len(manifest.feature_names) if manifest else 0)
    if not features:
        raise ArtifactError(
            f"{artifact.folder}: the graph does not say how many features it takes, nor a manifest"
        )
    zeros = np.zeros((_ROWS, features), np.float32)
    heads = _heads(session.outputs)
    try:
        answers = session.run(zeros, heads)
    except Exception as error:  # ONNX Runtime's exceptions have no common base class
        raise ArtifactError(
            f"{artifact.folder}: the graph can't be run on two rows: {first_line(error)}"
        ) from error
    widths = [_width(name, answer) for name, answer in zip(heads, answers, strict=True)]
    if len(set(widths)) > 1:
        raise ArtifactError(
            f"{artifact.folder}: {heads[0]} has {widths[0]} columns, {heads[1]} has {widths[1]}"
        )
    parts = split(model)
    task = manifest.task if manifest else _task(model, heads[0], widths[0])
    outputs = widths[0] if task == "regression" else max(widths[0], 2)
    info = ModelInfo(
        name=artifact.name,
        version=artifact.version,
        task=task,
        feature_names=manifest.feature_names if manifest else tuple(f"feature_{i}" for i in range(features)),
        output_names=manifest.output_names if manifest else _output_names(task, outputs),
        drop_rates=tuple(parts.rates.values()),
        predicts_noise=len(heads) > 1,
        provider=session.provider,
        columns=tuple(record.column() for record in manifest.columns) if manifest else (),
        calibrated=manifest is not None and manifest.calibration is not None,
    )
    if len(info.feature_names) != features or len(info.output_names) != outputs:
        raise ArtifactError(
            f"{artifact.folder}: the manifest names {len(info.feature_names)} features and "
            f"{len(info.output_names)} outputs, the graph has {features} and {outputs}"
        )
    try:
        prefix, opening, program = None, None, None
        values = dict.fromkeys(parts.boundary, zeros)
        if parts.prefix is not None:
            prefix = Session(parts.prefix.SerializeToString(), device, threads)
            opening = compile_prefix(parts.prefix, features)
            values |= dict(zip(prefix.outputs, prefix.run(zeros), strict=True))
        boundary = {
            name: value.shape[1]
            for name, value in values.items()
            if value.ndim == 2 and value.dtype == np.float32
        }
        program, reason = compile_program(parts, boundary, heads), None
    except MonteCarloUnavailable as error:
        reason = str(error)
    calibration = manifest.calibration if manifest else None
    return Blueprint(info, session, heads, prefix, opening, program, reason, calibration)


def _heads(outputs: tuple[str, ...]) -> tuple[str, ...]:
    prediction = next((name for name in _PREDICTIONS if name in outputs), outputs[0])
    return (prediction, NOISE) if NOISE in outputs and prediction != NOISE else (prediction,)


def _width(name: str, answer: np.ndarray) -> int:
    if answer.ndim not in (1, 2) or len(answer) != _ROWS or answer.dtype != np.float32:
        raise ArtifactError(
            f"output {name!r} is {answer.dtype} {list(answer.shape)} for two rows, not float32 [2, outputs]"
        )
    return answer.size // _ROWS


def _task(model: onnx.ModelProto, output: str, width: int) -> Task:
    """What a graph without a manifest predicts, by its last operation."""
    producers = {name: node for node in model.graph.node for name in node.output}
    node = producers.get(output)
    while node is not None and node.op_type == "Identity":
        node = producers.get(node.input[0])
    last = node.op_type if node is not None else ""
    if last == "Softmax" or output == "probabilities":
        return "binary" if width <= 2 else "multiclass"
    return "binary" if last == "Sigmoid" and width == 1 else "regression"


def _output_names(task: Task, outputs: int) -> tuple[str, ...]:
    return tuple(f"output_{i}" if task == "regression" else str(i) for i in range(outputs))
