"""Parameters to options: every type a client may send them in, and what is refused."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from dropserve.inference.service_pb2 import InferParameter
from dropserve_models.prediction import MonteCarloOptions
from dropserve_server.errors import InvalidRequest
from dropserve_server.grpc.open_inference_parameters import is_monte_carlo, read_options, read_seconds
from support.open_inference import parameter


def parameters(**values: Any) -> dict[str, InferParameter]:
    return {name: parameter(value) for name, value in values.items()}


def test_without_parameters_it_is_deterministic() -> None:
    assert not is_monte_carlo({})
    assert read_options({}, 50) is None


@pytest.mark.parametrize(
    ("value", "options"),
    [
        ({"passes": 7}, MonteCarloOptions(7)),
        ({"passes": "7"}, MonteCarloOptions(7)),
        ({"passes": 7.0}, MonteCarloOptions(7)),
        ({"passes": -7}, MonteCarloOptions(-7)),  # its range is the model's to check
        ({"seed": 0}, MonteCarloOptions(50, seed=0)),
        ({"seed": 2**64 - 1}, MonteCarloOptions(50, seed=2**64 - 1)),
        ({"seed": str(2**64 - 1)}, MonteCarloOptions(50, seed=2**64 - 1)),
        ({"quantiles": "0.05, .5,0.95"}, MonteCarloOptions(50, quantiles=(0.05, 0.5, 0.95))),
        ({"quantiles": 0.5}, MonteCarloOptions(50, quantiles=(0.5,))),
        ({"quantiles": 1}, MonteCarloOptions(50, quantiles=(1.0,))),
        ({"return_samples": True}, MonteCarloOptions(50, return_samples=True)),
        ({"return_samples": "True"}, MonteCarloOptions(50, return_samples=True)),
        ({"return_samples": "false"}, MonteCarloOptions(50)),
        ({"masks": "independent"}, MonteCarloOptions(50, masks="independent")),
        ({"mean_tolerance": 0.1}, MonteCarloOptions(50, mean_tolerance=0.1)),
        ({"std_tolerance": "1e-1"}, MonteCarloOptions(50, std_tolerance=0.1)),
        ({"mean_tolerance": 1}, MonteCarloOptions(50, mean_tolerance=1.0)),
    ],
)
def test_any_option_asks_for_error_bars(value: dict[str, Any], options: MonteCarloOptions) -> None:
    assert is_monte_carlo(parameters(**value))
    assert read_options(parameters(**value), 50) == options


def test_every_option_has_a_parameter() -> None:
    for field in fields(MonteCarloOptions):
        assert is_monte_carlo({field.name: InferParameter()})


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"passes": "many"}, "passes is 'many'; it must be a whole number"),
        ({"passes": 1.5}, "passes is 1.5; it must be a whole number"),
        ({"passes": True}, "passes is True; it must be a whole number"),
        ({"passes": ""}, "passes is ''"),
        ({"passes": "1_0"}, "passes is '1_0'"),
        ({"passes": "9" * 41}, "whole number"),
        ({"seed": float("inf")}, "seed is inf"),
        ({"quantiles": ""}, "numbers separated by commas"),
        ({"quantiles": "0.1;0.9"}, "numbers separated by commas"),
        ({"quantiles": False}, "numbers separated by commas"),
        ({"return_samples": 1}, "return_samples is 1; it must be true or false"),
        ({"return_samples": "yes"}, "true or false"),
        ({"masks": 1}, "masks is 1; it must be 'stratified' or 'independent'"),
        ({"masks": "Independent"}, "it must be 'stratified' or 'independent'"),
        ({"mean_tolerance": "low"}, "mean_tolerance is 'low'; it must be a number"),
        ({"mean_tolerance": True}, "must be a number"),
    ],
)
def test_the_wrong_type_is_refused_by_name(value: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        read_options(parameters(**value), 50)
    (name,) = value
    assert refusal.value.field == f"parameters.{name}"
    assert words in str(refusal.value)


def test_a_parameter_without_a_value_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="passes is ''"):
        read_options({"passes": InferParameter()}, 50)


@pytest.mark.parametrize("name", ["pases", "sequence_id", "Passes", ""])
def test_an_unknown_parameter_is_refused_and_the_known_ones_are_named(name: str) -> None:
    with pytest.raises(InvalidRequest, match="there are passes, seed, quantiles") as refusal:
        read_options({name: parameter(1)}, 50)
    assert refusal.value.field == "parameters"


def test_what_a_caller_sends_is_shown_in_part() -> None:
    for given in ({"x" * 10_000: parameter(1)}, parameters(passes="x" * 10_000)):
        with pytest.raises(InvalidRequest) as refusal:
            read_options(given, 50)
        assert len(str(refusal.value)) < 300


@pytest.mark.parametrize(
    "name", ["priority", "content_type", "headers", "timeout", "triton_enable_empty_final_response"]
)
def test_what_clients_of_other_servers_send_changes_nothing(name: str) -> None:
    assert not is_monte_carlo({name: parameter(1)})
    assert read_options({name: parameter(1)}, 50) is None


@pytest.mark.parametrize(
    ("timeout", "seconds", "left"),
    [
        (None, None, None),
        (None, 3.0, 3.0),
        (500_000, None, 0.5),
        (500_000, 3.0, 0.5),
        ("500000", 0.25, 0.25),
        (0, 3.0, 3.0),
        (0, None, float("inf")),
    ],
)
def test_a_timeout_in_microseconds_shortens_the_deadline(
    timeout: int | str | None, seconds: float | None, left: float | None
) -> None:
    given = {} if timeout is None else parameters(timeout=timeout)
    assert read_seconds(given, seconds) == left


@pytest.mark.parametrize("timeout", [-1, "soon"])
def test_a_timeout_that_is_none_is_refused(timeout: int | str) -> None:
    with pytest.raises(InvalidRequest, match="timeout is") as refusal:
        read_seconds(parameters(timeout=timeout), None)
    assert refusal.value.field == "parameters.timeout"
