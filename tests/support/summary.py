"""What is reported of passes whose masks are known, by the formulas of docs/monte-carlo.md, in float64."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from support.exact import Wide, entropy
from support.linearised import linearise
from support.onnx_models import Array, Mlp
from support.ways import Drawn


@dataclass(frozen=True)
class Summary:
    """[rows, outputs]; the entropies [rows], of a classifier."""

    mean: Wide
    variance: Wide
    standard_error: Wide
    std_standard_error: Wide
    predictive_entropy: Wide | None = None
    expected_entropy: Wide | None = None
    mutual_information: Wide | None = None


def summarise(network: Mlp, rows: Array, drawn: Drawn, *, closed: bool) -> Summary:
    """Run every pass, and sum up.

    Parameters
    ----------
    closed : bool
        Whether the last dropout, before a linear layer, is integrated in closed form, and what is known
        of the others taken off.
    """
    masks = iter(drawn.masks)
    sampled = [*network.rates[:-1], 0.0] if closed else network.rates
    given = [next(masks)[:, :, None, :] if rate else None for rate in sampled]
    if closed:
        hidden = np.maximum(_front(network).forward(rows, given[:-1]), 0.0)
        weight, rate = network.weights[-1].astype(np.float64), network.rates[-1]
        values = hidden @ weight + network.biases[-1]
        within = rate / (1.0 - rate) * hidden**2 @ weight**2
        linear, known, centre = linearise(network, rows, given[:-1])
        values = values - linear
        within = within + known + 2.0 * linear * (values - centre)
    else:
        values = network.forward(rows, given)
        within = np.zeros_like(values)
    if network.last == "Sigmoid":
        values, within = np.concatenate([1.0 - values, values], -1), within.repeat(2, -1)
    shape = (
        (len(drawn.strata), *values.shape[-3:]) if values.ndim == 4 else (len(drawn.strata), 1, *values.shape)
    )
    values, within = np.broadcast_to(values, shape), np.broadcast_to(within, shape)
    mean = values.mean(axis=(0, 1))
    squares = (values - mean) ** 2 + within
    of_mean, of_squares = (_of_mean(part, drawn) for part in (values, squares))
    variance = squares.mean(axis=(0, 1)) + of_mean
    found = Summary(mean, variance, np.sqrt(of_mean), np.sqrt(of_squares) / (2.0 * np.sqrt(variance)))
    if not network.last:
        return found
    predictive, expected = entropy(mean), entropy(values).mean(axis=(0, 1))
    return replace(
        found,
        predictive_entropy=predictive,
        expected_entropy=expected,
        mutual_information=predictive - expected,
    )


def _front(network: Mlp) -> Mlp:
    """All layers but the last."""
    return Mlp(network.weights[:-1], network.biases[:-1], network.rates[:-1])


def _of_mean(values: Wide, drawn: Drawn) -> Wide:
    """The variance of the mean of values [passes, draws, ...], by batch means over the strata."""
    overall = values.mean(axis=(0, 1))
    parts = [values[drawn.strata == stratum] for stratum in range(drawn.strata.max() + 1)]
    terms = [len(part) * (part.mean(axis=(0, 1)) - overall) ** 2 for part in parts]
    total: Wide = np.sum(terms, axis=0) / ((len(parts) - 1) * len(values))
    return total
