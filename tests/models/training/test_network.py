from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
from torch import nn

from dropserve_models.training.config import Activation
from dropserve_models.training.network import ACTIVATIONS, EVALUATION_ROWS, Network

MODULES: dict[Activation, nn.Module] = {
    "relu": nn.ReLU(),
    "leaky_relu": nn.LeakyReLU(0.01),
    "tanh": nn.Tanh(),
    "gelu": nn.GELU(),
    "silu": nn.SiLU(),
}


def network(*sizes: int, activation: Activation = "relu", members: int = 1, seed: int = 0) -> Network:
    made = Network(sizes, activation, members)
    made.initialise(np.random.default_rng(seed))
    return made


@pytest.mark.parametrize("activation", get_args(Activation))
def test_each_member_is_an_mlp_of_its_own(activation: Activation) -> None:
    ours = network(5, 7, 6, 3, activation=activation, members=3)
    with torch.no_grad():
        for bias in ours.biases:
            bias.normal_(generator=torch.Generator().manual_seed(1))
    x = torch.randn(3, 11, 5, generator=torch.Generator().manual_seed(2))
    outputs = ours.forward(x)
    assert outputs.shape == (3, 11, 3)
    for member in range(3):
        reference = x[member]
        for index, (weight, bias) in enumerate(zip(ours.weights, ours.biases, strict=True)):
            reference = reference @ weight[member] + bias[member]
            if index < 2:
                reference = MODULES[activation](reference)
        torch.testing.assert_close(outputs[member], reference)


def test_every_activation_has_a_function() -> None:
    assert set(ACTIVATIONS) == set(get_args(Activation))


def test_the_parameters_are_one_buffer() -> None:
    ours = network(4, 3, 2, members=2)
    assert ours.parameters.shape == (2, 4 * 3 + 3 + 3 * 2 + 2)
    before = ours.forward(torch.ones(2, 1, 4))
    with torch.no_grad():
        ours.parameters.mul_(2)
    assert ours.weights[0].data_ptr() == ours.parameters.data_ptr()
    torch.testing.assert_close(ours.forward(torch.ones(2, 1, 4)), before * 4)
    weights = ours.is_weight()
    assert weights.tolist() == [1.0] * 12 + [0.0] * 3 + [1.0] * 6 + [0.0] * 2


def test_the_gradient_has_the_layout_of_the_parameters() -> None:
    ours = network(4, 3, 2, members=2)
    x = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
    gradient = ours.gradient(ours.forward(x).square().sum())
    assert gradient.shape == ours.parameters.shape
    with torch.no_grad():  # against finite differences
        for column in (0, 13, 15, 22):
            step = torch.zeros_like(ours.parameters)
            step[1, column] = 1e-3
            values = []
            for sign in (1, -1):
                ours.parameters.add_(step, alpha=sign)
                values.append(ours.forward(x).double().square().sum().item())
                ours.parameters.sub_(step, alpha=sign)
            slope = (values[0] - values[1]) / 2e-3
            assert gradient[1, column].item() == pytest.approx(slope, rel=5e-3, abs=5e-3)


def test_initial_weights_have_the_variance_of_their_gain() -> None:
    ours = network(400, 300, 200, activation="relu")
    assert ours.weights[0].var().item() == pytest.approx(2 / 400, rel=0.02)
    assert ours.weights[1].var().item() == pytest.approx(1 / 300, rel=0.02)
    assert not torch.cat([bias.flatten() for bias in ours.biases]).any()


def test_evaluation_in_blocks_is_the_same_as_at_once() -> None:
    ours = network(3, 4, 2)
    x = torch.randn(1, EVALUATION_ROWS + 5, 3, generator=torch.Generator().manual_seed(0))
    outputs = ours.evaluate(x)
    assert not outputs.requires_grad
    torch.testing.assert_close(outputs, ours.forward(x).detach())


def test_masks_multiply_the_input_of_their_layer() -> None:
    ours = network(3, 4, 2)
    x = torch.randn(1, 6, 3, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([2.0, 0.0, 2.0])
    torch.testing.assert_close(ours.forward(x, [mask, None]), ours.forward(x * mask))
    hidden = torch.relu(x @ ours.weights[0] + ours.biases[0])
    mask = torch.tensor([0.0, 4.0, 4.0, 0.0])
    torch.testing.assert_close(ours.forward(x, [None, mask]), ours.forward_from(1, hidden * mask))


def test_max_norm_is_keras() -> None:
    # keras.constraints.MaxNorm(0.5, axis=0) on a kernel [in, out]:
    # w * clip(norm, 0, 0.5) / (1e-7 + norm), the norm over the incoming weights of each unit.
    ours = network(30, 20, 10, 5)
    with torch.no_grad():
        ours.weights[0][..., :5] *= 0.1  # some units below the bound; all others are above
    kernels = [weight.detach().numpy().copy() for weight in ours.weights]
    ours.limit_norms(0.5)
    for index, kernel in enumerate(kernels):
        length = np.sqrt(np.square(kernel).sum(axis=1, keepdims=True))
        keras = kernel * np.clip(length, 0, 0.5) / (1e-7 + length)
        expected = kernel if index == 2 else keras  # the output layer is free
        np.testing.assert_allclose(ours.weights[index].detach().numpy(), expected, rtol=1e-6)
    longest = torch.linalg.vector_norm(ours.weights[0], dim=1).max()
    assert longest.item() == pytest.approx(0.5)


def test_max_norm_leaves_shorter_and_zero_weights_untouched() -> None:
    ours = network(3, 4, 2)
    with torch.no_grad():
        ours.weights[0][..., 0] = 0.0
    before = ours.parameters.clone()
    ours.limit_norms(100.0)
    assert torch.equal(ours.parameters, before)
