from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dropserve_models.training.activations import ACTIVATIONS
from dropserve_models.training.config import Activation, Norm
from dropserve_models.training.network import EVALUATION_ROWS, Network, Tape

MODULES: dict[Activation, nn.Module] = {
    "relu": nn.ReLU(),
    "leaky_relu": nn.LeakyReLU(0.01),
    "tanh": nn.Tanh(),
    "gelu": nn.GELU(),
    "silu": nn.SiLU(),
}


def network(*sizes: int, activation: Activation = "relu", members: int = 1, seed: int = 0) -> Network:
    made = Network(sizes, activation, members)
    made.initialise([np.random.default_rng((seed, member)) for member in range(members)])
    return made


@pytest.mark.parametrize("activation", get_args(Activation))
def test_each_member_is_an_mlp_of_its_own(activation: Activation) -> None:
    ours = network(5, 7, 6, 3, activation=activation, members=3)
    for bias in ours.biases:
        bias.normal_(generator=torch.Generator().manual_seed(1))
    x = torch.randn(3, 11, 5, generator=torch.Generator().manual_seed(2))
    outputs = ours.forward(x)
    assert outputs.shape == (3, 11, 3)
    for member in range(3):
        reference = x[member]
        for index, (weight, bias) in enumerate(zip(ours.weights, ours.biases, strict=True)):
            reference = reference @ weight[member].T + bias[member]
            if index < 2:
                reference = MODULES[activation](reference)
        torch.testing.assert_close(outputs[member], reference)


def test_every_activation_has_a_function() -> None:
    assert set(ACTIVATIONS) == set(get_args(Activation))


def test_the_parameters_are_one_buffer() -> None:
    ours = network(4, 3, 2, members=2)
    assert ours.parameters.shape == (2, 4 * 3 + 3 + 3 * 2 + 2)
    before = ours.forward(torch.ones(2, 1, 4))
    ours.parameters.mul_(2)
    assert ours.weights[0].data_ptr() == ours.parameters.data_ptr()
    torch.testing.assert_close(ours.forward(torch.ones(2, 1, 4)), before * 4)
    weights = ours.is_weight()
    assert weights.tolist() == [1.0] * 12 + [0.0] * 3 + [1.0] * 6 + [0.0] * 2


def test_scales_and_running_statistics_are_in_the_buffer_and_no_weights() -> None:
    ours = Network((4, 3, 2), "relu", norm="batch")
    ours.initialise([np.random.default_rng(0)])
    assert ours.parameters[0, 15:27].tolist() == [1.0] * 3 + [0.0] * 6 + [1.0] * 3
    assert ours.is_weight().tolist() == [1.0] * 12 + [0.0] * 15 + [1.0] * 6 + [0.0] * 2


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("norm", get_args(Norm))
@pytest.mark.parametrize("activation", get_args(Activation))
@pytest.mark.parametrize("sizes", [(5, 7, 7, 7, 6, 3), (4, 2)])
def test_the_gradient_is_that_of_autograd(
    activation: Activation, sizes: tuple[int, ...], norm: Norm, residual: bool
) -> None:
    ours = Network(sizes, activation, 3, dtype=torch.float64, norm=norm, residual=residual)
    random = torch.Generator().manual_seed(0)
    ours.parameters.normal_(generator=random)
    x = torch.randn(3, 11, sizes[0], generator=random, dtype=torch.float64)
    masks: list[Tensor | None] = [
        torch.rand(3, 11, size, generator=random, dtype=torch.float64).gt(0.4) / 0.6 for size in sizes[:-1]
    ]
    if len(masks) > 1:
        masks[-1] = None  # a layer without dropout
    weights = torch.randn(3, 11, sizes[-1], generator=random, dtype=torch.float64)
    places = torch.ones(3, 11)
    places[2, 8:] = 0.0
    weights *= places.unsqueeze(2)

    leaf = ours.parameters.clone().requires_grad_()
    expected = ours.holding(leaf).forward(x, masks, Tape(places))
    (expected * weights).sum().backward()  # type: ignore[no-untyped-call]
    tape = Tape(places)
    outputs = ours.forward(x, masks, tape)
    torch.testing.assert_close(outputs, expected.detach())
    torch.testing.assert_close(ours.backward(tape, weights), leaf.grad)
    if norm != "batch":
        torch.testing.assert_close(outputs, ours.forward(x, masks))


def test_embeddings_take_the_place_of_positions_and_learn() -> None:
    ours = Network((2 + 3 + 1, 7, 2), "tanh", 2, dtype=torch.float64, embeddings=[(4, 3), (2, 1)])
    assert [table.shape for table in ours.tables] == [(2, 4, 3), (2, 2, 1)]
    random = torch.Generator().manual_seed(0)
    ours.parameters.normal_(generator=random)
    x = torch.randn(2, 9, 4, generator=random, dtype=torch.float64)
    x[..., 2] = torch.randint(0, 4, (2, 9), generator=random)
    x[..., 3] = torch.randint(0, 2, (2, 9), generator=random)
    mask = torch.rand(2, 9, 6, generator=random, dtype=torch.float64).gt(0.3) / 0.7
    weights = torch.randn(2, 9, 2, generator=random, dtype=torch.float64)

    leaf = ours.parameters.clone().requires_grad_()
    held = ours.holding(leaf)
    rows = [
        torch.cat([x[member, :, :2], *(
            nn.functional.embedding(x[member, :, 2 + number].long(), table[member])
            for number, table in enumerate(held.tables)
        )], dim=1)
        for member in range(2)
    ]  # fmt: skip
    expected = held.forward_from(0, torch.stack(rows), [mask, None])
    (expected * weights).sum().backward()  # type: ignore[no-untyped-call]
    tape = Tape()
    torch.testing.assert_close(ours.forward(x, [mask, None], tape), expected.detach())
    torch.testing.assert_close(ours.backward(tape, weights), leaf.grad)
    torch.testing.assert_close(ours.backward(tape, weights), leaf.grad)  # the buffer is not added to


def test_unseen_categories_begin_as_zeros_and_embeddings_decay() -> None:
    ours = Network((4, 2), "relu", 2, embeddings=[(50, 4)])
    ours.initialise([np.random.default_rng(member) for member in range(2)])
    assert not ours.tables[0][:, -1].any()
    assert ours.tables[0][:, :-1].square().sum(dim=2).mean().item() == pytest.approx(1.0, rel=0.2)
    assert ours.is_weight().tolist() == [1.0] * 8 + [0.0] * 2 + [1.0] * 200


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_the_order_within_a_hidden_layer(norm: Norm, residual: bool) -> None:
    """Linear, normalisation, activation, and then what came in, before its dropout."""
    ours = Network((4, 6, 6, 5, 2), "tanh", 2, norm=norm, residual=residual)
    ours.initialise([np.random.default_rng(member) for member in range(2)])
    assert ours.skips == [False, residual, False, False]
    x = torch.randn(2, 9, 4, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([2.0, 0.0, 2.0, 0.0, 2.0, 0.0])
    outputs = ours.forward(x, [None, mask, None, None], tape := Tape())
    ours.track(tape)
    for member in range(2):
        values = x[member]
        for index, (weight, bias) in enumerate(zip(ours.weights, ours.biases, strict=True)):
            before, values = values, values * mask if index == 1 else values
            values = values @ weight[member].T + bias[member]
            if index == 3:
                break
            made = (
                nn.BatchNorm1d(len(weight[member])) if norm == "batch" else nn.LayerNorm(len(weight[member]))
            )
            values = torch.tanh(made(values))
            if index == 1 and residual:
                values = values + before
        torch.testing.assert_close(outputs[member], values.detach())


def test_a_network_holding_others_parameters() -> None:
    ours = network(4, 3, 2, members=3)
    x = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))
    chosen = ours.holding(ours.parameters[[2, 0]])
    torch.testing.assert_close(chosen.forward(x[[2, 0]]), ours.forward(x)[[2, 0]])


def test_each_member_has_initial_weights_of_its_own() -> None:
    ours = network(4, 3, 2, members=2)
    assert not torch.equal(ours.parameters[0], ours.parameters[1])
    alone = Network((4, 3, 2), "relu")
    alone.initialise([np.random.default_rng((0, 1))])
    assert torch.equal(alone.parameters[0], ours.parameters[1])


def test_initial_weights_have_the_variance_of_their_gain() -> None:
    ours = network(400, 300, 200, activation="relu")
    assert ours.weights[0].var().item() == pytest.approx(2 / 400, rel=0.02)
    assert ours.weights[1].var().item() == pytest.approx(1 / 300, rel=0.02)
    assert not torch.cat([bias.flatten() for bias in ours.biases]).any()


def test_evaluation_in_blocks_is_the_same_as_at_once() -> None:
    ours = network(3, 4, 2)
    x = torch.randn(1, EVALUATION_ROWS + 5, 3, generator=torch.Generator().manual_seed(0))
    outputs = ours.evaluate(x)
    torch.testing.assert_close(outputs, ours.forward(x))


def test_masks_multiply_the_input_of_their_layer() -> None:
    ours = network(3, 4, 2)
    x = torch.randn(1, 6, 3, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([2.0, 0.0, 2.0])
    torch.testing.assert_close(ours.forward(x, [mask, None]), ours.forward(x * mask))
    hidden = torch.relu(x @ ours.weights[0].transpose(1, 2) + ours.biases[0])
    mask = torch.tensor([0.0, 4.0, 4.0, 0.0])
    torch.testing.assert_close(ours.forward(x, [None, mask]), ours.forward_from(1, hidden * mask))


def test_max_norm_is_keras() -> None:
    # keras.constraints.MaxNorm(0.5, axis=0) on a kernel [in, out]:
    # w * clip(norm, 0, 0.5) / (1e-7 + norm), the norm over the incoming weights of each unit.
    ours = network(30, 20, 10, 5)
    ours.weights[0][:, :5] *= 0.1  # some units below the bound; all others are above
    kernels = [weight.transpose(1, 2).numpy().copy() for weight in ours.weights]
    ours.limit_norms(torch.full((1, 1, 1), 0.5))
    for index, kernel in enumerate(kernels):
        length = np.sqrt(np.square(kernel).sum(axis=1, keepdims=True))
        keras = kernel * np.clip(length, 0, 0.5) / (1e-7 + length)
        expected = kernel if index == 2 else keras  # the output layer is free
        np.testing.assert_allclose(ours.weights[index].transpose(1, 2).numpy(), expected, rtol=1e-6)
    longest = torch.linalg.vector_norm(ours.weights[0], dim=2).max()
    assert longest.item() == pytest.approx(0.5)


def test_max_norm_leaves_shorter_and_zero_weights_untouched() -> None:
    ours = network(3, 4, 2)
    ours.weights[0][:, 0] = 0.0
    before = ours.parameters.clone()
    ours.limit_norms(torch.full((1, 1, 1), 100.0))
    assert torch.equal(ours.parameters, before)
