"""The worked cases of inverted dropout that a well-known deep learning course hands its students.

Their published results must come out of our network given their masks; the gradients by autograd.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from dropserve_models.training.network import Network


def transposed(values: ArrayLike) -> Tensor:
    """The course has [units, examples]; we have [members, examples, units]."""
    return torch.from_numpy(np.array(values, np.float64).T.copy()).unsqueeze(0)


def network(*layers: tuple[ArrayLike, ArrayLike]) -> Network:
    weights = [transposed(weight) for weight, _ in layers]
    sizes = [weights[0].shape[1], *(weight.shape[2] for weight in weights)]
    made = Network(sizes, "relu", dtype=torch.float64)
    for index, (_, bias) in enumerate(layers):
        made.weights[index].copy_(weights[index].transpose(1, 2))
        made.biases[index].copy_(transposed(bias))
    return made


W1 = [[-1.09989127, -0.17242821, -0.87785842], [0.04221375, 0.58281521, -1.10061918]]
W2 = [[0.50249434, 0.90085595], [-0.68372786, -0.12289023], [-0.93576943, -0.26788808]]
W3 = [[-0.6871727, -0.84520564, -0.67124613]]


def test_forward() -> None:
    features = [
        [
            1.6243453636632417,
            -0.6117564136500754,
            -0.5281717522634557,
            -1.0729686221561705,
            0.8654076293246785,
        ],
        [
            -2.3015386968802827,
            1.74481176421648,
            -0.7612069008951028,
            0.31903909605709857,
            -0.2493703754774101,
        ],
        [
            1.462107937044974,
            -2.060140709497654,
            -0.3224172040135075,
            -0.38405435466841564,
            1.1337694423354374,
        ],
    ]
    ours = network(
        (W1, [[1.14472371], [0.90159072]]),
        (W2, [[0.53035547], [-0.69166075], [-0.39675353]]),
        (W3, [[-0.0126646]]),
    )
    keep = 0.7
    first = transposed([[1, 0, 1, 1, 1], [1, 1, 1, 1, 1]]) / keep
    second = transposed([[1, 1, 1, 0, 1], [1, 1, 1, 1, 1], [0, 0, 1, 1, 0]]) / keep

    probabilities = torch.sigmoid(ours.forward(transposed(features), [None, first, second]))

    expected = [0.36974721, 0.00305176, 0.04565099, 0.49683389, 0.36974721]
    np.testing.assert_allclose(probabilities.detach().flatten(), expected, atol=2e-8)


def test_backward() -> None:
    # The case gives the activations after dropout, and asks for gradients of those before it. They were
    # computed with half the units kept, while the gradients are to be scaled for 0.8: so the error at
    # the output is handed to autograd as given.
    y = torch.tensor([[[1.0], [1.0], [0.0], [1.0], [0.0]]], dtype=torch.float64)
    answers = transposed([[0.32266394, 0.49683389, 0.00348883, 0.49683389, 0.32266394]])
    first_kept = transposed([[1, 0, 1, 1, 1], [1, 1, 1, 1, 0]])
    second_kept = transposed([[1, 0, 1, 0, 1], [0, 1, 0, 1, 1], [0, 0, 1, 0, 0]])
    first = transposed([[0, 0, 4.27989081, 5.21401307, 0], [0, 8.32019881, 1.58102041, 2.92987024, 0]])
    ours = network(
        (W1, [[0.0], [0.0]]), (W2, [[0.53035547], [-0.69166075], [-0.39675353]]), (W3, [[-0.0126646]])
    )

    given = ours.forward_from(1, first, [None, None, second_kept / 0.5])
    np.testing.assert_allclose(torch.sigmoid(given).detach(), answers, atol=2e-8)

    masks = [None, first_kept / 0.8, second_kept / 0.8]
    first = (first * 0.8).requires_grad_()  # of what was dropped nothing is left, so it needs no mask
    second = torch.zeros(1, 5, 3, dtype=torch.float64, requires_grad=True)
    (second_gradient,) = torch.autograd.grad(ours.forward_from(2, second, masks), second, answers - y)
    (first_gradient,) = torch.autograd.grad(ours.forward_from(1, first, masks), first, answers - y)

    expected = [
        [0.58180856, 0.0, -0.00299679, 0.0, -0.27715731],
        [0.0, 0.53159854, 0.0, 0.53159854, -0.34089673],
        [0.0, 0.0, -0.00292733, 0.0, 0.0],
    ]
    np.testing.assert_allclose(second_gradient[0].T, expected, atol=2e-8)
    expected = [
        [0.36544439, 0.0, -0.00188233, 0.0, -0.17408748],
        [0.65515713, 0.0, -0.00337459, 0.0, 0.0],
    ]
    np.testing.assert_allclose(first_gradient[0].T, expected, atol=2e-8)
