"""Running a program for one block of passes and rows.

Values are laid out [units, passes, rows]; what no Dropout reaches has one pass and broadcasts. Two ways:

* plain: every value holds all units, dropped ones multiplied by 0, and a linear layer is one matrix
  product over all passes and rows. Best for few rows.
* thinned: the weights each pass needs are gathered, and a linear layer is one smaller product a pass (see
  `subnetworks`). A layer that reads the prefix computes its result without dropout once and then, for every
  pass, only what the units dropped (or kept, if they are fewer) contribute. Memory is laid out [passes,
  units, rows], under the same logical shape. Best for many rows.

In both, every step treats each row on its own.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from dropserve_models.inference import operators, orthogonal, pointwise
from dropserve_models.inference.blocks import BlockMasks
from dropserve_models.inference.complement import drops_each, subtract, without_dropout
from dropserve_models.inference.control_variate import ControlVariate
from dropserve_models.inference.masks import Strata
from dropserve_models.inference.passes import Passes
from dropserve_models.inference.plan import Plan
from dropserve_models.inference.program import (
    Drop,
    Elementwise,
    Linear,
    Program,
    Softmax,
    arguments,
    read_once,
)
from dropserve_models.inference.schedule import schedule
from dropserve_models.inference.scratch import Scratch, alike
from dropserve_models.inference.subnetworks import Layer, Units, gather, pick

GATHER_RATE = 0.3
"""From this drop rate on, leaving stochastic inputs out of a product saves more than gathering them costs."""


class Runner:
    """Runs a program according to its plan. Thread-safe.

    Parameters
    ----------
    scratch : Scratch
        Where large values are made.
    """

    def __init__(self, program: Program, plan: Plan, scratch: Scratch) -> None:
        self._empty = scratch.empty
        self.program = program
        self.plan = plan
        self._fresh = read_once(program)
        self._operations = operators.operations(program, self._empty)
        self._constants = [
            [operators.column(arg) for arg in step.args if not isinstance(arg, str)]
            if isinstance(step, Elementwise)
            else []
            for step in program.steps
        ]
        self._layers = {
            step.out: Layer(
                step, program.sites[plan.fused[step.out].site].rate if step.out in plan.fused else 0.0
            )
            for step in program.steps
            if isinstance(step, Linear)
        }
        self._all = schedule(program, plan, set(program.outputs))
        self._closed = self._all
        if plan.affine is not None:
            others = {*program.outputs[1:], plan.affine.x}
            self._closed = schedule(program, plan, others)
            rate = program.sites[plan.tail].rate
            weight = torch.from_numpy(plan.affine.weight)
            self._mean = operators.padded(weight.float())
            self._within = operators.padded((weight.square() * (rate / (1.0 - rate))).float())
            self._predictions = len(weight)
            self._offset = torch.from_numpy(plan.affine.offset).float().reshape(-1, 1, 1)
        self._variate: ControlVariate | None = None
        if (found := plan.linearisation) is not None:
            operations = [operators.bound(step, self._empty) for step in found.program.steps]
            self._variate = ControlVariate(found, operations)

    def run(
        self,
        boundary: Mapping[str, Tensor],
        masks: BlockMasks,
        *,
        thinned: bool,
        integrate: bool,
        seeded: bool = True,
    ) -> Passes:
        """Compute a block.

        Parameters
        ----------
        boundary : mapping of Tensor [units, 1, rows]
        thinned : bool
            Whether to thin; a matter of speed, and of the last bits.
        integrate : bool
            Whether the last dropout is integrated; then its units are all needed.
        seeded : bool
            Whether a row's bits must be the same wherever it lies.
        """
        closed = integrate and self.plan.affine is not None
        values = dict(boundary)
        entropy = None
        for number, dead in self._closed if closed else self._all:
            step = self.program.steps[number]
            if isinstance(step, Drop):
                values[step.out] = self._drop(step, values[step.x], masks, thinned)
            elif isinstance(step, Linear) and thinned:
                values[step.out] = self._thin(step, values, masks, integrate, seeded)
            elif isinstance(step, Elementwise):
                values[step.out] = self._elementwise(number, step, values, masks, thinned, integrate)
            elif isinstance(step, Softmax) and not step.log and step.out == self.program.outputs[0]:
                values[step.out], entropy = pointwise.softmax_with_entropy(
                    values[step.x], seeded=seeded, lost=step.x in self._fresh, empty=self._empty
                )
            else:
                args = operators.aligned([values[name] for name in arguments(step)])
                values[step.out] = self._operations[number](*args)
            for name in dead:
                values.pop(name, None)
        if not integrate or self.plan.affine is None:
            return Passes([values[name] for name in self.program.outputs], entropy=entropy)
        hidden = values[self.plan.affine.x]
        mean = self._product(self._mean, hidden)[: self._predictions].add_(self._offset)
        squares = torch.mul(hidden, hidden, out=alike(hidden, self._empty))
        within = self._product(self._within, squares)[: self._predictions]
        least = None
        if self._variate is not None:
            least = pointwise.total_(within.clone(), 1).unsqueeze(1)
            self._variate.correct(mean, within, boundary, masks.weighted)
        return Passes([mean, *(values[name] for name in self.program.outputs[1:])], within, least=least)

    def prepare(self, boundary: dict[str, Tensor], groups: Strata, integrate: bool) -> dict[str, Tensor]:
        """The boundary [units, 1, rows], and what thinned linear layers that read it give without dropout.

        Where the masks of the strata `groups` don't tell that; see `complement`.
        """
        values = dict(boundary)
        for name, drop in self.plan.fused.items():
            packed = self._packed(name, integrate) is not None
            rate = self.program.sites[drop.site].rate
            if self._subtracts(drop, integrate) and (
                packed or not all(drops_each(rate, n) for n, _ in groups)
            ):
                layer = self._layers[name]
                full = torch.mm(operators.padded(layer.weight), boundary[drop.x][:, 0])[: len(layer.weight)]
                values[_full(name)] = (
                    full if layer.bias is None else full.add_(layer.bias[:, None])
                ).unsqueeze(1)
        return values

    def linearised(self, boundary: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What `run` needs to know of some rows, beside the boundary, to integrate the last dropout."""
        return {} if self._variate is None else self._variate.values(boundary)

    def _drop(self, step: Drop, x: Tensor, masks: BlockMasks, thinned: bool) -> Tensor:
        if thinned and step in self.plan.fused.values():
            return x  # the linear layer that follows leaves the dropped units out
        mask = masks.scaled(step.site)
        if 1 < x.shape[1] < mask.shape[1]:
            x = x.repeat_interleave(masks.draws, 1)
        if x.shape[1] > 1 and not x.is_contiguous():
            return x * mask
        return torch.mul(x, mask, out=self._empty(len(x), max(x.shape[1], mask.shape[1]), x.shape[2]))

    def _packing(self, name: str, masks: BlockMasks, integrate: bool) -> Units | None:
        """The kept units that a value is reduced to when thinning, or None where it holds all."""
        site = self._packed(name, integrate)
        return None if site is None else masks.kept(site)

    def _packed(self, name: str, integrate: bool) -> int | None:
        """The site whose kept units are all there is of a value when thinning."""
        site = self.plan.packed.get(name)
        return None if integrate and site == self.plan.tail else site

    def _subtracts(self, drop: Drop, integrate: bool) -> bool:
        """Whether the layer after a Dropout subtracts what few units are dropped from its result without."""
        sampled = not (integrate and drop.site == self.plan.tail)
        return sampled and drop.x in self.program.boundary and self.program.sites[drop.site].rate <= 0.5

    def make_weights(self, masks: BlockMasks, name: str, *, integrate: bool) -> Tensor:
        """The weights that thinning leaves of a layer that follows a Dropout, made once.

        [passes, outputs, inputs]; those of the tail, for every draw of its masks, where it is integrated.
        """
        layer, drop = self._layers[name], self.plan.fused[name]
        inputs = outputs = None
        if not integrate or drop.site != self.plan.tail:
            inputs = self._inputs(drop, masks, integrate)
            outputs = self._packing(name, masks, integrate)
        chosen = masks.binary(drop.site) if inputs is None else inputs
        return masks.once(name, lambda: layer.weights(chosen, outputs, self._empty))

    def _inputs(self, drop: Drop, masks: BlockMasks, integrate: bool) -> Units | None:
        """The inputs that a layer after a Dropout multiplies; None: all of them, with weights of 0."""
        if drop.x in self.program.boundary:
            return masks.lost(drop.site) if self._subtracts(drop, integrate) else masks.kept(drop.site)
        rate = self.program.sites[drop.site].rate
        packed = self._packing(drop.x, masks, integrate)
        return masks.kept(drop.site) if packed is None and rate >= GATHER_RATE else packed

    def _thin(
        self, step: Linear, values: Mapping[str, Tensor], masks: BlockMasks, integrate: bool, seeded: bool
    ) -> Tensor:
        layer = self._layers[step.out]
        outputs = self._packing(step.out, masks, integrate)
        drop = self.plan.fused.get(step.out)
        if drop is None:
            weights = masks.once(step.out, lambda: layer.weights(None, outputs, self._empty))
            return self._product_of_passes(weights, values[step.x].permute(1, 0, 2), layer.biases(outputs))
        batch = values[drop.x].permute(1, 0, 2)
        if masks.negative is not None and drop.site == self.plan.tail:
            biases = layer.biases(None)
            return orthogonal.product(
                layer.weight, masks.negative, batch, masks.draws, biases, self._empty
            ).permute(1, 0, 2)
        weights = self.make_weights(masks, step.out, integrate=integrate)
        if integrate and drop.site == self.plan.tail:
            return self._tail_draws(weights, batch, masks, layer.biases(None))
        inputs = self._inputs(drop, masks, integrate)
        if inputs is not None and self._packing(drop.x, masks, integrate) is None:
            batch = gather(batch, inputs, self._empty)
        if not self._subtracts(drop, integrate):
            return self._product_of_passes(weights, batch, layer.biases(outputs))
        lost = self._bmm(weights, batch)
        if (known := values.get(_full(step.out))) is not None:
            full = known.permute(1, 0, 2)
            full = full if outputs is None else gather(full, outputs, self._empty)
        else:
            size = masks.strata[0][0]
            drops = drops_each(self.program.sites[drop.site].rate, size)
            bias = layer.biases(None)
            full = without_dropout(lost, size, drops, bias, seeded=seeded, empty=self._empty)
        return subtract(full, lost).permute(1, 0, 2)

    def _tail_draws(self, weights: Tensor, batch: Tensor, masks: BlockMasks, biases: Tensor | None) -> Tensor:
        """The tail's layer for every draw: those of a pass meet the same activations, so one product does."""
        passes, draws, width = masks.passes, masks.draws, weights.shape[1]
        stacked = weights.view(passes, draws * width, -1)
        product = self._bmm(stacked, batch.expand(passes, -1, -1)).view(passes * draws, width, -1)
        return (product if biases is None else product.add_(biases)).permute(1, 0, 2)

    def _elementwise(
        self,
        number: int,
        step: Elementwise,
        values: Mapping[str, Tensor],
        masks: BlockMasks,
        thinned: bool,
        integrate: bool,
    ) -> Tensor:
        constants = self._constants[number]
        if constants and thinned and (kept := self._packing(step.out, masks, integrate)) is not None:
            constants = [constant if len(constant) == 1 else pick(constant, kept) for constant in constants]
        pending = iter(constants)
        args = [values[arg] if isinstance(arg, str) else next(pending) for arg in step.args]
        return self._operations[number](*operators.aligned(args))

    def _product(self, weight: Tensor, x: Tensor) -> Tensor:
        """weight [out, in] times a value [in, passes, rows], whichever way its memory is laid out."""
        if x.is_contiguous():
            flat = x.view(len(x), -1)
            product = torch.mm(weight, flat, out=self._empty(len(weight), flat.shape[1]))
            return product.view(-1, *x.shape[1:])
        batch = x.permute(1, 0, 2)
        return self._bmm(weight.expand(len(batch), -1, -1), batch).permute(1, 0, 2)

    def _product_of_passes(self, weights: Tensor, batch: Tensor, biases: Tensor | None) -> Tensor:
        """weights [passes or 1, out, in] times [passes or 1, in, rows], plus biases: [out, passes, rows]."""
        passes = max(weights.shape[0], batch.shape[0])
        product = self._bmm(weights.expand(passes, -1, -1), batch.expand(passes, -1, -1))
        return (product if biases is None else product.add_(biases)).permute(1, 0, 2)

    def _bmm(self, left: Tensor, right: Tensor) -> Tensor:
        if len(left) == 1:  # threads share a product that is alone; see `operators.UNIT_MULTIPLE`
            weight = operators.padded(left[0])
            product = torch.mm(weight, right[0], out=self._empty(len(weight), right.shape[2]))
            return product[None, : left.shape[1]]
        return torch.bmm(left, right, out=self._empty(*left.shape[:2], right.shape[2]))


def _full(name: str) -> str:
    """Under which name a layer's result without dropout is kept."""
    return f"{name} without dropout"
