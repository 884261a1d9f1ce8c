"""The options of a prediction, checked."""

from __future__ import annotations

import operator
from collections.abc import Sequence

from dropserve_models.errors import InputError
from dropserve_models.prediction import MAX_PASSES, MAX_QUANTILES, MonteCarloOptions


def integer(field: str, value: object) -> int:
    """`value` as an integer; raise InputError where it is none."""
    try:
        return operator.index(value)  # type: ignore[arg-type]  # numpy's integers as well
    except TypeError:
        raise InputError(field, f"{field} is {value!r}; it must be an integer") from None


def number(field: str, value: object) -> float:
    """`value` as a number; raise InputError where it is none."""
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise InputError(field, f"{field} is {value!r}; it must be a number") from None


def numbers(field: str, values: Sequence[float]) -> tuple[float, ...]:
    """`values` as numbers; raise InputError where they are none."""
    try:
        return tuple(float(value) for value in values)
    except (TypeError, ValueError):
        raise InputError(field, f"{field} is {values!r}; it must be a list of numbers") from None


def check_options(options: MonteCarloOptions) -> None:
    """Raise InputError where an option is out of range."""
    if not 1 <= options.passes <= MAX_PASSES:
        raise InputError("passes", f"passes is {options.passes}; it must be from 1 to {MAX_PASSES:,}")
    if options.seed is not None and not 0 <= options.seed < 2**64:
        raise InputError("seed", f"seed is {options.seed}; it must be from 0 to 2**64 - 1")
    if len(options.quantiles) > MAX_QUANTILES:
        raise InputError(
            "quantiles", f"{len(options.quantiles)} quantiles; at most {MAX_QUANTILES} are answered"
        )
    for quantile in options.quantiles:
        if not 0.0 <= quantile <= 1.0:
            raise InputError("quantiles", f"quantile {quantile:g} is not within [0, 1]")
    for field in ("mean_tolerance", "std_tolerance"):
        tolerance = getattr(options, field)
        if tolerance is not None and not 0.0 < tolerance < float("inf"):
            raise InputError(field, f"{field} is {tolerance:g}; it must be above 0, e.g. 0.1")
    if options.adaptive and options.keeps_passes:
        raise InputError(
            "quantiles" if options.quantiles else "return_samples",
            "rows stop at different passes under a tolerance, so quantiles and samples can't be returned",
        )
    if options.masks not in ("stratified", "independent"):
        raise InputError("masks", f"masks is {options.masks!r}; it must be 'stratified' or 'independent'")
