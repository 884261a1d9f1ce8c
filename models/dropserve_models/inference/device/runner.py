"""Running a program for one block of passes and rows, on the device.

Values are laid out as everywhere, [units, passes, rows]; what no Dropout reaches has one pass. Every unit is
multiplied, by one product a layer over all passes and rows: on an accelerator a regular product that keeps
dropped units is worth more than an irregular one without them.

A mask before a linear layer goes either onto the values, which writes passes x inputs x rows numbers, or
onto the weights, which writes passes x inputs x outputs and is done once for all rows: whichever is less.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dropserve_models.inference import operators
from dropserve_models.inference.control_variate import ControlVariate
from dropserve_models.inference.passes import Passes
from dropserve_models.inference.plan import Plan
from dropserve_models.inference.program import (
    Drop,
    Elementwise,
    Linear,
    Program,
    Select,
    Softmax,
    Step,
    arguments,
)


@dataclass(frozen=True, slots=True)
class Masks:
    """What a block of passes drops.

    Attributes
    ----------
    passes : int
    values : sequence of Tensor [units, passes, rows or 1]
        0 or 1/(1-p), a site each; that of the tail may have several draws a pass, side by side.
    weights : mapping of Tensor [draws or passes, outputs, inputs]
        By the name of a linear layer: its weights, masked. The others' masks go onto the values.
    """

    passes: int
    values: Sequence[Tensor]
    weights: Mapping[str, Tensor]


class DeviceRunner:
    """Runs a program on a device."""

    def __init__(self, program: Program, plan: Plan, device: torch.device) -> None:
        self._plan = plan
        self._steps = program.steps
        self._outputs = program.outputs
        self._weights: dict[str, Tensor] = {}
        self._biases: dict[str, Tensor] = {}
        for step in program.steps:
            if isinstance(step, Linear):
                self._weights[step.out] = torch.tensor(step.weight, device=device)
                if step.bias is not None:
                    self._biases[step.out] = torch.tensor(step.bias, device=device)[:, None, None]
        self._operations = {step.out: _operation(step, device) for step in program.steps}
        self._all = _schedule(program.steps, program.outputs)
        self._closed = self._all
        if plan.affine is not None:
            self._closed = _schedule(program.steps, (*program.outputs[1:], plan.affine.x))
            rate = program.sites[plan.tail].rate
            squares = np.square(plan.affine.weight) * (rate / (1.0 - rate))
            self._mean, self._within, self._offset = (
                torch.tensor(array.astype(np.float32), device=device)
                for array in (plan.affine.weight, squares, plan.affine.offset[:, None, None])
            )

        self._variate: ControlVariate | None = None
        if (found := plan.linearisation) is not None:
            self._variate = ControlVariate(found, [_bound(step, device) for step in found.program.steps])

    def masked_layers(self, rows: int, integrate: bool) -> dict[str, int]:
        """The linear layers whose weights are to be masked for so many rows, with their Dropout's site."""
        steps, _ = self._schedule(integrate)
        return {
            step.out: drop.site
            for step in steps
            if isinstance(step, Linear)
            and (drop := self._plan.fused.get(step.out)) is not None
            and len(step.weight) <= rows
        }

    def mask(self, name: str, values: Tensor) -> Tensor:
        """A layer's weights [passes, outputs, inputs] under a mask [inputs, passes, 1]."""
        return self._weights[name] * values.permute(1, 2, 0).contiguous()

    def run(self, boundary: Mapping[str, Tensor], masks: Masks, *, integrate: bool) -> Passes:
        """Compute a block.

        Parameters
        ----------
        boundary : mapping of Tensor [units, 1, rows]
        integrate : bool
            Whether the last dropout is integrated.
        """
        steps, last_reads = self._schedule(integrate)
        beside = {self._plan.fused[name].out for name in masks.weights}
        values = dict(boundary)
        for step in steps:
            if isinstance(step, Drop):
                # A mask that has gone onto weights leaves the values as they are.
                values[step.out] = values[step.x] if step.out in beside else self._drop(step, values, masks)
            elif isinstance(step, Linear):
                product = (
                    _masked_product(masks.weights[step.out], values[step.x], masks.passes)
                    if step.out in masks.weights
                    else _product(self._weights[step.out], values[step.x])
                )
                bias = self._biases.get(step.out)
                values[step.out] = product if bias is None else product.add_(bias)
            else:
                args = operators.aligned([values[name] for name in arguments(step)])
                values[step.out] = self._operations[step.out](*args)
            for name in last_reads[step.out]:
                del values[name]
        if not (integrate and self._plan.affine is not None):
            return Passes([values[name] for name in self._outputs])
        hidden = values[self._plan.affine.x]
        mean = _product(self._mean, hidden).add_(self._offset)
        outputs = [mean, *(values[name] for name in self._outputs[1:])]
        within = _product(self._within, hidden.square())
        if self._variate is None:
            return Passes(outputs, within)
        least = within.sum(1, keepdim=True)
        known = self._variate.values(boundary)
        self._variate.correct(mean, within, known, lambda site, x: _weighted(masks.values[site], x))
        return Passes(outputs, within, least=least)

    def _schedule(self, integrate: bool) -> tuple[list[Step], Mapping[str, Sequence[str]]]:
        return self._closed if integrate and self._plan.affine is not None else self._all

    @staticmethod
    def _drop(step: Drop, values: Mapping[str, Tensor], masks: Masks) -> Tensor:
        mask, x = masks.values[step.site], values[step.x]
        if 1 < x.shape[1] < mask.shape[1]:
            x = x.repeat_interleave(mask.shape[1] // x.shape[1], 1)
        return x * mask


def _operation(step: Step, device: torch.device) -> Callable[..., Tensor]:
    """The function of a step's values; constants and indices lie on the device."""
    match step:
        case Drop() | Linear():
            return lambda x: x  # `DeviceRunner.run` computes these
        case Elementwise():
            return operators.with_constants(operators.elementwise(step), step, device)
        case Select():
            indices = torch.tensor(step.indices, device=device)
            return lambda x: x.index_select(0, indices)
        case Softmax():
            # torch's own is one kernel. That it may round a row by its place matters on the CPU alone.
            return lambda x: torch.log_softmax(x, 0) if step.log else torch.softmax(x, 0)
        case _:
            return operators.operation(step)


def _bound(step: Step, device: torch.device) -> Callable[..., Tensor]:
    """The same, of linear layers too."""
    if not isinstance(step, Linear):
        return _operation(step, device)
    weight = torch.tensor(step.weight, device=device)
    bias = None if step.bias is None else torch.tensor(step.bias, device=device)[:, None, None]

    def apply(x: Tensor) -> Tensor:
        product = _product(weight, x)
        return product if bias is None else product.add_(bias)

    return apply


def _schedule(steps: Sequence[Step], wanted: Sequence[str]) -> tuple[list[Step], dict[str, list[str]]]:
    """The steps that lead to wanted values, and after which of them which values are no longer needed."""
    needed = set(wanted)
    schedule: list[Step] = []
    last_reads: dict[str, list[str]] = {}
    for step in reversed(steps):
        if step.out in needed:
            reads = set(arguments(step))
            last_reads[step.out] = sorted(reads - needed)
            needed |= reads
            schedule.insert(0, step)
    return schedule, last_reads


def _weighted(mask: Tensor, x: Tensor) -> Tensor:
    """Values [units, rows] summed over the units, each times its mask [units, passes, rows or 1]."""
    if mask.shape[2] == 1:
        return mask[:, :, 0].t() @ x
    return torch.einsum("upr,ur->pr", mask, x)


def _product(weight: Tensor, x: Tensor) -> Tensor:
    """weight [outputs, inputs] times a value [inputs, passes, rows], whichever way its memory is laid out."""
    if x.is_contiguous():
        return torch.mm(weight, x.view(len(x), -1)).view(-1, *x.shape[1:])
    batch = x.permute(1, 0, 2)
    return torch.bmm(weight.expand(len(batch), -1, -1), batch).permute(1, 0, 2)


def _masked_product(weights: Tensor, x: Tensor, passes: int) -> Tensor:
    """weights [draws, outputs, inputs] times a value [inputs, passes or 1, rows], as [outputs, draws, rows].

    The draws of a pass meet the same values: they are further outputs of one product.
    """
    draws, outputs, _ = weights.shape
    batch = x.permute(1, 0, 2).expand(passes, -1, -1)
    product = torch.bmm(weights.view(passes, draws // passes * outputs, -1), batch)
    return product.view(draws, outputs, -1).permute(1, 0, 2)
