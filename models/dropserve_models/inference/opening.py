"""What comes before the first Dropout, in torch.

ONNX Runtime computes any prefix, but in threads of its own. Just after work of torch's, whose threads spin
while they wait for more, these take turns on the same cores: a product takes twice as long.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dropserve_models.inference import operators
from dropserve_models.inference.program import Elementwise, Program, Step, arguments
from dropserve_models.inference.scratch import Empty
from dropserve_models.prediction import FloatArray


class Opening:
    """Runs a program without Dropouts, whose boundary is the input. Thread-safe.

    `empty` makes what large results are written to.
    """

    def __init__(self, program: Program, empty: Empty = torch.empty) -> None:
        self._program = program
        operations = operators.operations(program, empty)
        self._steps = [
            (step.out, operation, _operands(step))
            for step, operation in zip(program.steps, operations, strict=True)
        ]

    def values(self, features: FloatArray) -> dict[str, Tensor]:
        """The outputs, [units, 1, rows], of features [rows, features]."""
        (name,) = self._program.boundary
        values = {name: torch.from_numpy(np.require(features, requirements="W")).t().unsqueeze(1)}
        for out, operation, operands in self._steps:
            values[out] = operation(*(values[arg] if isinstance(arg, str) else arg for arg in operands))
        return {output: values[output] for output in self._program.outputs}


def _operands(step: Step) -> list[str | Tensor]:
    if not isinstance(step, Elementwise):
        return list(arguments(step))
    return [arg if isinstance(arg, str) else operators.column(arg) for arg in step.args]
