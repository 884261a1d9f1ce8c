"""The softmax and its entropies against float64, both as a seed has them and as is quickest."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from torch import Tensor

from dropserve_models.inference.pointwise import softmax_with_entropy

SHAPE = (10, 7, 37)


def by_passes(x: Tensor) -> Tensor:
    """The same value, laid out [passes, units, rows] in memory."""
    return x.transpose(0, 1).contiguous().transpose(0, 1)


@pytest.mark.parametrize("seeded", [True, False])
@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
@pytest.mark.parametrize("laid_out", [torch.Tensor.contiguous, by_passes])
def test_it_is_the_softmax_of_float64(seeded: bool, scale: float, laid_out: type) -> None:
    rng = np.random.default_rng(0)
    logits = (scale * rng.normal(size=SHAPE)).astype(np.float32)
    x = laid_out(torch.from_numpy(logits))
    found, entropy = softmax_with_entropy(x, seeded=seeded)
    logarithms = log_softmax(logits.astype(np.float64), axis=0)
    expected = np.exp(logarithms)
    np.testing.assert_allclose(found.numpy(), expected, rtol=2e-5, atol=1e-30)
    entropies = -(expected * logarithms).sum(0, keepdims=True)
    np.testing.assert_allclose(entropy.numpy(), entropies, rtol=1e-5, atol=1e-6 * max(scale, 1.0))
    np.testing.assert_array_equal(x.numpy(), logits)


@pytest.mark.parametrize("seeded", [True, False])
def test_what_is_lost_gives_the_same(seeded: bool) -> None:
    x = torch.from_numpy(np.random.default_rng(1).normal(size=SHAPE).astype(np.float32))
    kept = softmax_with_entropy(x, seeded=seeded)
    overwritten = softmax_with_entropy(x.clone(), seeded=seeded, lost=True)
    for one, other in zip(kept, overwritten, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


@pytest.mark.parametrize("seeded", [True, False])
def test_a_class_that_is_impossible_adds_nothing(seeded: bool) -> None:
    x = torch.tensor([[[0.0, 3e38]], [[0.0, -3e38]], [[-torch.inf, -torch.inf]]])
    found, entropy = softmax_with_entropy(x, seeded=seeded)
    np.testing.assert_allclose(found[:, 0].numpy(), [[0.5, 1.0], [0.5, 0.0], [0.0, 0.0]], atol=1e-7)
    np.testing.assert_allclose(entropy[0, 0].numpy(), [np.log(2.0), 0.0], atol=1e-6)
