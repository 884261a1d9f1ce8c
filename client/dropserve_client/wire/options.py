"""What a request asks, checked: everything but its rows."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from dropserve.v1 import prediction_pb2
from dropserve_client.errors import InputError
from dropserve_client.types import Masks

MAX_PASSES: Final = 2**32 - 1
MAX_SEED: Final = 2**64 - 1

_MASKS: Final[dict[str, prediction_pb2.Masks.ValueType]] = {
    "stratified": prediction_pb2.MASKS_STRATIFIED,
    "independent": prediction_pb2.MASKS_INDEPENDENT,
}


@dataclass(frozen=True, slots=True)
class Question:
    """Everything a request says beside its rows, checked.

    `monte_carlo` is None for deterministic mode, `interval` 0 for none.
    """

    model: str
    version: str
    request_id: str
    monte_carlo: prediction_pb2.MonteCarlo | None
    interval: float = 0.0


def question(
    model: str,
    *,
    version: str | int = "",
    passes: int | None = None,
    seed: int | None = None,
    quantiles: Sequence[float] = (),
    return_samples: bool = False,
    masks: Masks | None = None,
    mean_tolerance: float | None = None,
    std_tolerance: float | None = None,
    interval: float | None = None,
    request_id: str = "",
) -> Question:
    """Check the options of a prediction.

    Only what the wire can't carry is refused; the server knows its own limits.

    Raises
    ------
    InputError
        For an option of the wrong type or range, and for Monte Carlo options without `passes`.
    """
    model, version = named(model, version)
    request_id = _text(request_id, "request_id")
    wanted = _quantiles(quantiles)
    monte_carlo = None
    if passes is not None:
        monte_carlo = prediction_pb2.MonteCarlo(
            passes=integer(passes, "passes", 1, MAX_PASSES, within="monte_carlo."),
            seed=None if seed is None else integer(seed, "seed", 0, MAX_SEED, within="monte_carlo."),
            quantiles=wanted,
            return_samples=bool(return_samples),
            masks=_masks(masks),
            mean_tolerance=_tolerance(mean_tolerance, "mean_tolerance"),
            std_tolerance=_tolerance(std_tolerance, "std_tolerance"),
        )
    else:
        given = {"seed": seed is not None, "quantiles": bool(wanted)}
        given |= {"return_samples": bool(return_samples), "masks": masks is not None}
        given |= {"mean_tolerance": mean_tolerance is not None, "std_tolerance": std_tolerance is not None}
        idle = [name for name, is_given in given.items() if is_given]
        if idle:
            raise InputError(
                f"{idle[0]} is an option of Monte Carlo predictions: give passes as well, e.g. passes=100",
                field=f"monte_carlo.{idle[0]}",
            )
    return Question(model, version, request_id, monte_carlo, _interval(interval))


def with_seed(ask: Question, seed: int) -> Question:
    """The same question with its masks fixed, so that the parts of a split request share them."""
    monte_carlo = prediction_pb2.MonteCarlo()
    monte_carlo.CopyFrom(ask.monte_carlo or monte_carlo)
    monte_carlo.seed = seed
    return replace(ask, monte_carlo=monte_carlo)


def named(model: str, version: str | int) -> tuple[str, str]:
    """A model's name and version as the wire writes them."""
    if not model:
        raise InputError("model must be the name of a model", field="model")
    if isinstance(version, bool) or not isinstance(version, str | int):
        raise InputError(f"version must be a positive integer or empty, not {version!r}", field="version")
    return _text(model, "model"), _text(str(version), "version")


def integer(value: object, name: str, low: int, high: int, within: str = "") -> int:
    """`value` as an integer within bounds; booleans are none.

    `within` is what the field's name begins with in the request, e.g. "monte_carlo.".
    """
    try:
        number = -1 if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = -1
    if not low <= number <= high:
        raise InputError(
            f"{name} must be an integer from {low} to {high}, not {value!r}", field=within + name
        )
    return number


def _text(value: object, name: str) -> str:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:  # half a surrogate pair
            pass
        else:
            return value
    raise InputError(f"{name} must be text that UTF-8 can write, not {value!r}", field=name)


def _quantiles(quantiles: Sequence[float]) -> list[float]:
    try:
        return [float(quantile) for quantile in quantiles]
    except (TypeError, ValueError):
        raise InputError(
            f"quantiles must be numbers within [0, 1], not {quantiles!r}", field="monte_carlo.quantiles"
        ) from None


def _tolerance(tolerance: float | None, name: str) -> float:
    """The wire's 0 is no tolerance, so a 0 that was given is refused here."""
    if tolerance is None:
        return 0.0
    number = _number(tolerance)
    if not 0.0 < number < math.inf:
        raise InputError(f"{name} must be a number above 0, not {tolerance!r}", field=f"monte_carlo.{name}")
    return number


def _interval(interval: float | None) -> float:
    """The wire's 0 is no interval, so a 0 that was given is refused here."""
    if interval is None:
        return 0.0
    coverage = _number(interval)
    if not 0.0 < coverage < 1.0:
        raise InputError(
            f"interval must be a coverage above 0 and below 1, e.g. 0.9, not {interval!r}", field="interval"
        )
    return coverage


def _number(value: float) -> float:
    """`value` as a float; NaN, which is within no bounds, where it is no number."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def _masks(masks: Masks | None) -> prediction_pb2.Masks.ValueType:
    if masks is None:
        return prediction_pb2.MASKS_UNSPECIFIED
    if masks not in _MASKS:
        raise InputError(
            f"masks must be 'stratified' or 'independent', not {masks!r}", field="monte_carlo.masks"
        )
    return _MASKS[masks]
