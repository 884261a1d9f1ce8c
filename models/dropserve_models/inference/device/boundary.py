"""The values where the prefix ends and the program begins, on the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from dropserve_models.inference.deterministic import Session
from dropserve_models.prediction import FloatArray

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def boundary_values(
    names: Sequence[str], prefix: Session | None, features: FloatArray, rows: int, device: torch.device
) -> dict[str, Tensor]:
    """The boundary values named, [units, 1, rows]; features [rows, features] where the prefix has no such.

    Parameters
    ----------
    prefix : Session or None
        Run on `rows` rows at a time, because a library's products depend on how many there are.
    rows : int
        A divisor of the number of rows.
    """
    computed = [name for name in names if prefix is not None and name in prefix.outputs]
    values: dict[str, Tensor] = {}
    if len(computed) < len(names):
        # A residual connection may cross from the input itself, which the prefix does not compute.
        values = dict.fromkeys(names, _by_units(torch.from_numpy(features).to(device)))
    if prefix is not None and computed:
        found = [
            _prefix_values(prefix, features[start : start + rows], computed, device)
            for start in range(0, len(features), rows)
        ]
        values |= {
            name: torch.cat(parts, 2) if len(parts) > 1 else parts[0]
            for name, parts in zip(computed, zip(*found, strict=True), strict=True)
        }
    return {name: values[name] for name in names}


def _prefix_values(
    prefix: Session, features: FloatArray, names: Sequence[str], device: torch.device
) -> list[Tensor]:
    if prefix.provider != _PROVIDERS.get(device.type):
        return [_by_units(torch.from_numpy(value).to(device)) for value in prefix.run(features, names)]
    found = prefix.run_on(device.type, features, names)
    values = [_by_units(_shared(value, device)) for value in found]
    if device.type == "cuda":
        # When `found` goes, ONNX Runtime may use its memory again, on a stream that waits for nobody.
        torch.cuda.current_stream(device).synchronize()
    return values


def _shared(value: Any, device: torch.device) -> Tensor:
    """ONNX Runtime's tensor as torch's, by DLPack; older versions of it do not offer that, then a copy."""
    if hasattr(value, "__dlpack__"):
        return from_dlpack(value)
    return torch.from_numpy(value.numpy()).to(device)


def _by_units(value: Tensor) -> Tensor:
    """A copy of [rows, units] as a value, [units, 1, rows]."""
    return value.t().clone(memory_format=torch.contiguous_format).unsqueeze(1)
