"""The steps of a program, in torch, on values laid out [units, passes, rows].

A value that no Dropout reaches has one pass, and broadcasts. Units come first so that a linear layer is
one matrix product over all passes and rows, and unit-wise work runs over contiguous memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from dropserve_models.inference import pointwise
from dropserve_models.inference.program import (
    Array,
    Concat,
    Drop,
    Elementwise,
    Linear,
    Mean,
    Program,
    Select,
    Softmax,
    Step,
    read_once,
)
from dropserve_models.inference.scratch import Empty

Operation = Callable[..., Tensor]

UNIT_MULTIPLE = 16
"""With few outputs, matrix libraries split the sum over the inputs between threads, so that its last bits
depend on their number; padded to a multiple of this, they split the outputs or the rows."""

_UNARY: Mapping[str, Operation] = {
    "Abs": torch.abs,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Gelu": pointwise.gelu,
    "GeluTanh": pointwise.gelu_tanh,
    "HardSwish": functional.hardswish,
    "Identity": lambda x: x,
    "Log": torch.log,
    "Mish": lambda x: x * torch.tanh(pointwise.softplus(x)),
    "Neg": torch.neg,
    "Reciprocal": torch.reciprocal,
    "Relu": torch.relu,
    "Sigmoid": pointwise.sigmoid,
    "Softplus": pointwise.softplus,
    "Softsign": lambda x: x / (1.0 + torch.abs(x)),
    "Sqrt": torch.sqrt,
    "Tanh": torch.tanh,
}
_WITH_ATTRIBUTES: Mapping[str, Operation] = {
    "Celu": lambda x, alpha: pointwise.elu(x, alpha, scale=alpha),
    "Clip": lambda x, min=None, max=None: torch.clamp(x, min, max),
    "Elu": pointwise.elu,
    "HardSigmoid": lambda x, alpha, beta: torch.clamp(x * alpha + beta, 0.0, 1.0),
    "LeakyRelu": lambda x, alpha: functional.leaky_relu(x, alpha),
    "Selu": lambda x, alpha, gamma: pointwise.elu(x, alpha) * gamma,
    "Swish": lambda x, alpha: x * pointwise.sigmoid(alpha * x),
    "ThresholdedRelu": lambda x, alpha: functional.threshold(x, alpha, 0.0),
}
_BINARY: Mapping[str, Operation] = {
    "Add": torch.add,
    "Div": torch.div,
    "Max": torch.maximum,
    "Min": torch.minimum,
    "Mul": torch.mul,
    "Pow": pointwise.power,
    "PRelu": lambda x, slope: torch.where(x >= 0, x, slope * x),
    "Sub": torch.sub,
    "Sum": torch.add,
}


def column(constant: Array) -> Tensor:
    """A constant [units] or [1] as a value: [units, 1, 1]."""
    return torch.from_numpy(constant.copy()).reshape(-1, 1, 1)


def operations(program: Program, empty: Empty = torch.empty) -> list[Operation]:
    """The functions of a program's steps; a relu overwrites what no other step reads."""
    fresh = read_once(program)
    return [
        torch.relu_
        if isinstance(step, Elementwise) and step.op == "Relu" and step.args[0] in fresh
        else operation(step, empty)
        for step in program.steps
    ]


def operation(step: Step, empty: Empty = torch.empty) -> Operation:
    """The function of a step's values; a Drop's is its mask's business, and the identity here.

    `empty` makes what large results are written to.
    """
    match step:
        case Drop():
            return lambda x: x
        case Linear():
            return linear(step, empty)
        case Elementwise():
            return elementwise(step)
        case Softmax():
            return softmax(step)
        case Select():
            return select(step)
        case Concat():
            return concat(step)
        case Mean():
            return mean(step)


def bound(step: Step, empty: Empty = torch.empty) -> Operation:
    """The function of the values that a step names: its constants are known."""
    function = operation(step, empty)
    return with_constants(function, step) if isinstance(step, Elementwise) else function


def with_constants(function: Operation, step: Elementwise, device: torch.device | None = None) -> Operation:
    """`function` of a step's arguments, as one of the values that it names; the constants lie on a device."""
    fixed = [None if isinstance(arg, str) else column(arg).to(device or "cpu") for arg in step.args]
    if all(constant is None for constant in fixed):
        return function

    def apply(*values: Tensor) -> Tensor:
        given = iter(values)
        return function(*(next(given) if constant is None else constant for constant in fixed))

    return apply


def elementwise(step: Elementwise) -> Operation:
    """The function of a step's arguments, constants already turned into values."""
    if step.op in _BINARY:
        operation = _BINARY[step.op]

        def fold(*args: Tensor) -> Tensor:
            result = args[0]
            for other in args[1:]:
                result = operation(result, other)
            return result

        return fold
    if step.op in _WITH_ATTRIBUTES:
        operation = _WITH_ATTRIBUTES[step.op]
        attributes = dict(step.attributes)
        return lambda x: operation(x, **attributes)
    return _UNARY[step.op]


def linear(step: Linear, empty: Empty = torch.empty) -> Operation:
    """x [in, passes, rows] -> [out, passes, rows], one matrix product."""
    weight = padded(torch.from_numpy(step.weight.copy()))
    bias = None if step.bias is None else column(step.bias)
    units = len(step.weight)

    def apply(x: Tensor) -> Tensor:
        x_flat = x.reshape(x.shape[0], -1)
        result = torch.mm(weight, x_flat, out=empty(len(weight), x_flat.shape[1]))
        result = result[:units].view(-1, *x.shape[1:])
        return result if bias is None else result.add_(bias)

    return apply


def padded(weight: Tensor) -> Tensor:
    """Weights [out, in] with rows of zeros up to a multiple of `UNIT_MULTIPLE`."""
    missing = -len(weight) % UNIT_MULTIPLE
    return torch.cat([weight, weight.new_zeros(missing, weight.shape[1])]) if missing else weight


def softmax(step: Softmax) -> Operation:
    """Over the units."""
    return pointwise.log_softmax if step.log else pointwise.softmax


def select(step: Select) -> Operation:
    """Some units; a view where they are consecutive."""
    indices = step.indices
    if len(indices) and (indices == range(indices[0], indices[0] + len(indices))).all():
        first, last = int(indices[0]), int(indices[-1]) + 1
        return lambda x: x[first:last]
    chosen = torch.from_numpy(indices.copy())
    return lambda x: x.index_select(0, chosen)


def concat(step: Concat) -> Operation:
    """Values side by side; those with one pass are repeated where others have more."""

    def apply(*xs: Tensor) -> Tensor:
        passes = max(x.shape[1] for x in xs)
        return torch.cat([x.expand(-1, passes, -1) for x in xs])

    return apply


def mean(_: Mean) -> Operation:
    """Over the units, kept as one unit."""
    return lambda x: (pointwise.total(x) / len(x)).unsqueeze(0)


def aligned(args: Sequence[Tensor]) -> Sequence[Tensor]:
    """Arguments with one entry a draw where some have one a pass: those are repeated."""
    most = max(arg.shape[1] for arg in args)
    return [
        arg.repeat_interleave(most // arg.shape[1], 1) if 1 < arg.shape[1] < most else arg for arg in args
    ]
