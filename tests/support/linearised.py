"""A relu network as an affine function of its masks, by the formulas of docs/monte-carlo.md, in float64."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from support.exact import Wide
from support.onnx_models import Array, Mlp

AWAY = 1.6
"""How many standard deviations from its mean a unit is looked at on either side."""


def linearise(network: Mlp, rows: Array, masks: Sequence[Wide | None]) -> tuple[Wide, Wide, Wide]:
    """What is known of the conditional means of passes, the last dropout integrated.

    Parameters
    ----------
    masks : sequence of ndarray [passes, draws, 1, units] or None
        Those before each layer but the last; None where there is no Dropout.

    Returns
    -------
    l : ndarray [passes, draws, rows, outputs]
    variance : ndarray [rows, outputs]
        Of l, over all masks.
    centre : ndarray [rows, outputs]
    """
    weights = [weight.astype(np.float64) for weight in network.weights]
    mean = rows.astype(np.float64)
    variance = np.zeros_like(mean)
    dropped, slopes = [], []
    for weight, bias, rate in zip(weights[:-1], network.biases, network.rates, strict=False):
        dropped.append(mean)
        # A mask has mean 1 and variance p/(1-p), and its unit is taken to be uncorrelated with others.
        variance = ((mean**2 + variance) * rate / (1.0 - rate) + variance) @ weight**2
        mean = mean @ weight + bias
        away = AWAY * np.sqrt(variance)
        above, below = np.maximum(mean + away, 0.0), np.maximum(mean - away, 0.0)
        slope = np.divide(above - below, 2.0 * away, out=1.0 * (mean > 0.0), where=away > 0.0)
        mean = np.where(away > 0.0, (above + below) / 2.0, np.maximum(mean, 0.0))
        variance = slope**2 * variance
        slopes.append(slope)
    centre = mean @ weights[-1] + network.biases[-1]
    # The chain rule, outputs first: [outputs, rows, units].
    gradient = np.broadcast_to(weights[-1].T[:, None], (centre.shape[1], *mean.shape))
    linear, known = np.zeros(()), np.zeros(centre.shape)
    for layer in reversed(range(len(slopes))):
        gradient = (gradient * slopes[layer]) @ weights[layer].T
        by_mask, mask, rate = gradient * dropped[layer], masks[layer], network.rates[layer]
        if mask is not None:
            linear = linear + np.einsum("oru,pdu->pdro", by_mask, mask[:, :, 0] - 1.0)
            known = known + rate / (1.0 - rate) * (by_mask**2).sum(-1).T
    return linear, known, centre
