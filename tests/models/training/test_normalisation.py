from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dropserve_models.training.config import Norm
from dropserve_models.training.normalisation import LEAVES, Normalisation, Places, make_normalisation

MEMBERS, ROWS, UNITS = 3, 7, 5


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def leaves_of(norm: Norm) -> list[Tensor]:
    leaves = [drawn(MEMBERS, 1, UNITS, seed=seed) for seed in range(len(LEAVES[norm]))]
    return [*leaves[:3], *(leaf.square() + 0.1 for leaf in leaves[3:])]


def module_of(norm: Norm, leaves: list[Tensor], member: int) -> nn.Module:
    made: nn.Module
    if norm == "layer":
        made = nn.LayerNorm(UNITS, dtype=torch.float64)
    else:
        made = nn.BatchNorm1d(UNITS, dtype=torch.float64)
        made.running_mean, made.running_var = (leaf[member, 0].clone() for leaf in leaves[2:])
    for parameter, leaf in zip(made.parameters(), leaves, strict=False):
        parameter.data.copy_(leaf[member, 0])
    return made


@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_it_is_what_torch_has(norm: Norm) -> None:
    leaves, x, gradient = leaves_of(norm), drawn(MEMBERS, ROWS, UNITS, seed=9) * 3 + 1, drawn(3, 7, 5, seed=8)
    weights = torch.ones(MEMBERS, ROWS)
    weights[1, 4:] = 0.0  # the second member has fewer rows
    ours: Normalisation = make_normalisation(norm, leaves)
    modules = [module_of(norm, leaves, member) for member in range(MEMBERS)]
    for member, module in enumerate(modules):
        torch.testing.assert_close(ours.evaluate(x)[member], module.eval()(x[member]))

    values, found = ours.train(x, Places.of(x, weights))
    slots = [torch.zeros_like(leaf) for leaf in leaves]
    by_x = ours.backward(gradient * weights.unsqueeze(2), found, slots)
    ours.track(found)
    for member, module in enumerate(modules):
        rows = int(weights[member].sum())
        given = x[member, :rows].clone().requires_grad_()
        expected = module.train()(given)
        expected.backward(gradient[member, :rows])
        torch.testing.assert_close(values[member, :rows], expected.detach())
        torch.testing.assert_close(by_x[member, :rows], given.grad)
        assert not by_x[member, rows:].any()
        for slot, parameter in zip(slots, module.parameters(), strict=False):
            torch.testing.assert_close(slot[member, 0], parameter.grad)
        torch.testing.assert_close(ours.evaluate(x)[member], module.eval()(x[member]).detach())


def test_without_weights_every_row_counts() -> None:
    leaves, x = leaves_of("batch"), drawn(MEMBERS, ROWS, UNITS, seed=9)
    ours = make_normalisation("batch", leaves)
    whole, _ = ours.train(x, Places.of(x, None))
    weighted, _ = ours.train(x, Places.of(x, torch.ones(MEMBERS, ROWS)))
    torch.testing.assert_close(whole, weighted)


def test_a_step_with_one_row_or_none_teaches_no_statistics() -> None:
    leaves, x = leaves_of("batch"), drawn(MEMBERS, ROWS, UNITS, seed=9)
    before = [leaf.clone() for leaf in leaves]
    weights = torch.ones(MEMBERS, ROWS)
    weights[0, 1:] = 0.0
    weights[1] = 0.0
    ours = make_normalisation("batch", leaves)
    values, found = ours.train(x, Places.of(x, weights))
    assert values.isfinite().all()
    ours.track(found)
    for leaf, was in zip(leaves, before, strict=True):
        assert torch.equal(leaf[:2], was[:2])
    assert not torch.equal(leaves[2][2], before[2][2])
