"""What the parameters of an Open Inference Protocol request ask for."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from reprlib import repr as bounded
from typing import Any, cast, get_args

from dropserve.inference.service_pb2 import InferParameter
from dropserve_models.prediction import Masks, MonteCarloOptions
from dropserve_server.errors import InvalidRequest

TIMEOUT = "timeout"
INTERVAL = "interval"

# Clients of other servers send these; none of them would change an answer here.
_IGNORED = {"priority", "content_type", "headers", "binary_data_output"}
_IGNORED_PREFIX = "triton_"
_UNRELATED = {*_IGNORED, INTERVAL, TIMEOUT}  # to the mode

_WHOLE_NUMBER = re.compile("[+-]?[0-9]{1,40}", re.ASCII)

Parameters = Mapping[str, InferParameter]


def is_monte_carlo(parameters: Parameters) -> bool:
    """Whether a request with these parameters asks for error bars."""
    return not _READERS.keys().isdisjoint(parameters)


def read_options(parameters: Parameters, default_passes: int) -> MonteCarloOptions | None:
    """The options of a Monte Carlo request, None for a deterministic one.

    Their ranges are checked where the limits are known.

    Raises
    ------
    InvalidRequest
        A parameter is unknown, or of the wrong type.
    """
    options: dict[str, Any] = {}
    for name, parameter in parameters.items():
        reader = _READERS.get(name)
        if reader is not None:
            options[name] = reader(name, parameter)
        elif name not in _UNRELATED and not name.startswith(_IGNORED_PREFIX):
            known = ", ".join((*_READERS, INTERVAL, TIMEOUT))
            raise InvalidRequest("parameters", f"there is no parameter {bounded(name)}; there are {known}")
    return MonteCarloOptions(**{"passes": default_passes, **options}) if options else None


def read_interval(parameters: Parameters) -> float:
    """The coverage of the interval that a request asks for; 0 for none.

    Raises
    ------
    InvalidRequest
        `interval` is not a number, or 0, which would ask for nothing.
    """
    if INTERVAL not in parameters:
        return 0.0
    interval = _number(INTERVAL, parameters[INTERVAL])
    if interval == 0.0:
        raise _wrong(INTERVAL, interval, "a coverage above 0 and below 1, e.g. 0.9")
    return interval


def read_seconds(parameters: Parameters, seconds: float | None) -> float | None:
    """How long the caller will wait: `seconds`, which its deadline leaves, or its `timeout` if that is less.

    Raises
    ------
    InvalidRequest
        `timeout` is not a number of microseconds.
    """
    if TIMEOUT not in parameters:
        return seconds
    microseconds = _integer(TIMEOUT, parameters[TIMEOUT])
    if microseconds < 0:
        raise InvalidRequest(
            f"parameters.{TIMEOUT}", f"{TIMEOUT} is {microseconds} microseconds; it must not be negative"
        )
    timeout = microseconds / 1e6 if microseconds else float("inf")  # 0 is Triton's "none"
    return min(timeout, float("inf") if seconds is None else seconds)


def _integer(name: str, parameter: InferParameter) -> int:
    value = _value(parameter)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    # Clients whose parameters are all texts, or all numbers of JSON, are understood as well.
    if (isinstance(value, float) and value.is_integer()) or (
        isinstance(value, str) and _WHOLE_NUMBER.fullmatch(value)
    ):
        return int(value)
    raise _wrong(name, value, "a whole number")


def _number(name: str, parameter: InferParameter) -> float:
    value = _value(parameter)
    try:
        if not isinstance(value, bool):
            return float(value)
    except ValueError:
        pass
    raise _wrong(name, value, "a number")


def _numbers(name: str, parameter: InferParameter) -> tuple[float, ...]:
    value = _value(parameter)
    try:
        if isinstance(value, str):
            return tuple(float(part) for part in value.split(","))
        if not isinstance(value, bool):
            return (float(value),)
    except ValueError:
        pass
    raise _wrong(name, value, "numbers separated by commas, e.g. '0.05,0.95'")


def _flag(name: str, parameter: InferParameter) -> bool:
    value = _value(parameter)
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if isinstance(value, bool):
        return value
    raise _wrong(name, value, "true or false")


def _masks(name: str, parameter: InferParameter) -> Masks:
    value = _value(parameter)
    if value in get_args(Masks):
        return cast(Masks, value)
    raise _wrong(name, value, " or ".join(map(repr, get_args(Masks))))


def _value(parameter: InferParameter) -> bool | int | float | str:
    chosen = parameter.WhichOneof("parameter_choice")
    value: bool | int | float | str = "" if chosen is None else getattr(parameter, chosen)
    return value


def _wrong(name: str, value: object, expected: str) -> InvalidRequest:
    return InvalidRequest(
        f"parameters.{name}", f"parameter {name} is {bounded(value)}; it must be {expected}"
    )


# By the name that a parameter shares with its option.
_READERS: dict[str, Callable[[str, InferParameter], Any]] = {
    "passes": _integer,
    "seed": _integer,
    "quantiles": _numbers,
    "return_samples": _flag,
    "masks": _masks,
    "mean_tolerance": _number,
    "std_tolerance": _number,
}
