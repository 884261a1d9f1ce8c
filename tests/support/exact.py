"""Monte Carlo dropout's infinite-pass answers, by enumerating every mask of a small network in float64."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from support.onnx_models import Array, Mlp

Wide = NDArray[np.float64]


@dataclass(frozen=True)
class Moments:
    """What an estimate converges to; [rows, outputs], the entropies [rows] in nats."""

    mean: Wide
    variance: Wide
    predictive_entropy: Wide
    expected_entropy: Wide

    @property
    def mutual_information(self) -> Wide:
        return self.predictive_entropy - self.expected_entropy


def enumerate_masks(network: Mlp, x: Array) -> tuple[Wide, Wide]:
    """The outputs [masks, rows, outputs] under every combination of masks, and the probabilities [masks]."""
    widths = [len(weight) if rate else 0 for weight, rate in zip(network.weights, network.rates, strict=True)]
    kept = np.array(list(product((0.0, 1.0), repeat=sum(widths))))
    probability = np.ones(len(kept))
    masks: list[Wide | None] = []
    start = 0
    for width, rate in zip(widths, network.rates, strict=True):
        part = kept[:, start : start + width]
        probability *= np.where(part == 1.0, 1.0 - rate, rate).prod(axis=1)
        masks.append(part[:, None, :] / (1.0 - rate) if width else None)
        start += width
    return network.forward(x, masks), probability


def moments(outputs: Wide, probability: Wide) -> Moments:
    """Of outputs [masks, rows, outputs]; the entropies are those of class probabilities."""
    if outputs.shape[2] == 1:  # a single column is the probability of the second class
        classes = np.concatenate([1.0 - outputs, outputs], axis=2)
    else:
        classes = outputs
    mean = np.tensordot(probability, outputs, 1)
    return Moments(
        mean,
        np.tensordot(probability, (outputs - mean) ** 2, 1),
        entropy(np.tensordot(probability, classes, 1)),
        np.tensordot(probability, entropy(classes), 1),
    )


def entropy(probabilities: Wide) -> Wide:
    """In nats, over the last axis; NaN where these are no probabilities."""
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = probabilities * np.log(probabilities)
    return -np.asarray(np.where(probabilities == 0.0, 0.0, terms).sum(axis=-1))
