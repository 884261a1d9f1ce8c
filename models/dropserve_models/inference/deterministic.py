"""Deterministic inference: one ONNX Runtime session."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Literal, cast

import numpy as np
import onnxruntime

from dropserve_models.errors import ArtifactError, DeviceError
from dropserve_models.prediction import FloatArray

Device = Literal["auto", "cpu", "cuda"]

_LINE_CHARACTERS = 300
_ALONE_BYTES = 2**25
"""Rows times bytes of the model up to which one thread computes as fast as several, and at less cost."""


class Session:
    """An ONNX Runtime session with one float32 input, [rows, features]. Thread-safe.

    Attributes
    ----------
    provider : str
        The execution provider that was verified after creation.
    """

    def __init__(self, model: bytes, device: Device = "auto", threads: int | None = None) -> None:
        providers = _providers(device)
        # ONNX Runtime would count the host's cores, not the quota of this process.
        threads = threads or available_cores()
        try:
            # Its fallback is to the CPU, tells so on stdout, and is no help where that is what failed.
            self._session = onnxruntime.InferenceSession(
                model, _options(threads), providers=providers, enable_fallback=len(providers) > 1
            )
        except Exception as error:  # the runtime's exceptions have no common base class
            raise ArtifactError(f"ONNX Runtime refuses the model: {first_line(error)}") from error
        self.provider = cast(str, self._session.get_providers()[0])
        if device == "cuda" and self.provider != "CUDAExecutionProvider":
            raise DeviceError(
                f"device cuda was asked for, but ONNX Runtime runs this model on {self.provider}; "
                "install onnxruntime-gpu with its CUDA libraries, or use --device cpu"
            )
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or inputs[0].type != "tensor(float)" or len(inputs[0].shape) != 2:
            raise ArtifactError(
                "the model must have one input, float32 [rows, features]; it has "
                + (", ".join(f"{i.name} {i.type} {i.shape}" for i in inputs) or "none")
            )
        rows, width = inputs[0].shape
        if isinstance(rows, int):
            raise ArtifactError(
                f"the model takes exactly {rows} rows; export it with a dynamic first dimension"
            )
        self._input = inputs[0].name
        self.features = width if isinstance(width, int) else None
        self.outputs = tuple(output.name for output in self._session.get_outputs())
        # Waking a second thread for a few rows takes longer than computing them. The number of threads is
        # the session's, so few rows have one of their own, where a second copy of the weights is no burden.
        self._few = _ALONE_BYTES // len(model)
        self._alone = self._session
        if threads > 1 and self._few and self.provider == "CPUExecutionProvider":
            self._alone = onnxruntime.InferenceSession(model, _options(1), providers=providers)

    def run(self, features: FloatArray, outputs: Sequence[str] | None = None) -> list[FloatArray]:
        """The outputs named (without names: all) for features [rows, features]."""
        session = self._alone if len(features) <= self._few else self._session
        return cast("list[FloatArray]", session.run(outputs, {self._input: features}))

    def run_on(self, device: str, features: FloatArray, outputs: Sequence[str]) -> list[Any]:
        """The outputs named, left where they are: on `device`, "cuda" or "cpu".

        Returns
        -------
        list of onnxruntime.OrtValue
            Which hold their memory; complete, and not used by the session again while they exist.
        """
        binding = self._session.io_binding()
        binding.bind_cpu_input(self._input, features)
        for output in outputs:
            binding.bind_output(output, device)
        binding.synchronize_inputs()
        self._session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return cast("list[Any]", binding.get_outputs())


def _options(threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that wait would spin, and take the cores from everything else here.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.log_severity_level = 4  # its errors reach us as exceptions
    return options


def available_cores() -> int:
    """The cores this process may use: its affinity mask, and the quota of its control group."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_quota()
    return max(1, min(cores, int(np.ceil(quota)))) if quota else cores


def _cgroup_quota() -> float | None:
    """Cores' worth of CPU time the control group grants (cgroup v2, then v1), or None without a limit."""
    try:
        with open("/sys/fs/cgroup/cpu.max", encoding="ascii") as file:
            quota, period = file.read().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        pass
    try:
        with open("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", encoding="ascii") as file:
            limit = int(file.read())
        with open("/sys/fs/cgroup/cpu/cpu.cfs_period_us", encoding="ascii") as file:
            return limit / int(file.read()) if limit > 0 else None
    except (OSError, ValueError):
        return None


def _providers(device: Device) -> list[str | tuple[str, dict[str, str]]]:
    available = onnxruntime.get_available_providers()
    if device == "cpu" or "CUDAExecutionProvider" not in available:
        return ["CPUExecutionProvider"]
    if not os.path.exists("/dev/nvidiactl") and not os.path.exists("/dev/dxg"):
        # Without a driver the CUDA provider would only print an error and fall back.
        return ["CPUExecutionProvider"]
    onnxruntime.preload_dlls()
    # TF32 keeps 10 bits of a float32's 23, and is on by default.
    return [("CUDAExecutionProvider", {"use_tf32": "0"}), "CPUExecutionProvider"]


def first_line(error: Exception) -> str:
    """What the runtime says, in one line of a bounded length: it quotes the model's names."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:_LINE_CHARACTERS]
