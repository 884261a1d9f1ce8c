from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dropserve_models.errors import ConfigError
from dropserve_models.training.config import TrainingConfig
from dropserve_models.training.search.space import Axis, Space


def space(rows: int = 500, **options: Any) -> Space:
    config = TrainingConfig.from_mapping(options)
    return Space(config, config.given, rows)


@pytest.mark.parametrize(
    "axis",
    [
        Axis("weight_decay", 0.001, 1.0),
        Axis("input_drop", 0.01, 0.4, off_share=0.4, off=0.0),
        Axis("max_norm", 1.0, 6.0, off_share=0.5, reverse=True),
    ],
)
def test_a_place_on_an_axis_is_that_of_its_value(axis: Axis) -> None:
    for place in np.linspace(axis.off_share, 1.0, 9):
        value = axis.value(float(place))
        assert value is not None
        assert axis.low <= value <= axis.high
        assert axis.place(value) == pytest.approx(place, abs=0.003)
    assert axis.place(axis.high * 2) in (1.0, axis.off_share)


def test_the_tightest_bound_is_farthest_from_none() -> None:
    axis = Axis("max_norm", 1.0, 6.0, off_share=0.5, reverse=True)
    assert axis.value(0.49) is None
    assert axis.value(0.5) == 6.0
    assert axis.value(1.0) == 1.0
    assert axis.place(None) == axis.place(axis.value(0.1)) == 0.25


def test_every_point_is_a_valid_configuration() -> None:
    found, random = space(), np.random.default_rng(0)
    for shape in range(len(found.shapes)):
        for _ in range(20):
            config = found.at(shape, random.random(found.dimensions))
            assert TrainingConfig.model_validate(config.model_dump()) == config
            assert found.shape_of(config) == shape
            again = found.at(shape, found.point(config))
            assert again.hidden_drop == pytest.approx(config.hidden_drop, rel=0.01)
            assert (again.max_norm or 9.0) == pytest.approx(config.max_norm or 9.0, rel=0.01)


def test_options_given_are_kept() -> None:
    found = space(hidden=(7, 7), epochs=9, weight_decay=0.5, hidden_drop=0.25)
    assert [axis.option for axis in found.axes] == ["input_drop", "learning_rate", "max_norm"]
    config = found.at(0, np.full(3, 0.9))
    assert (config.hidden, config.epochs, config.weight_decay, config.hidden_drop) == (
        (7, 7),
        9,
        0.5,
        (0.25,),
    )


def test_recipes_from_elsewhere_keep_what_is_given() -> None:
    found = space(hidden=(7, 7), input_drop=0.25)
    recipes = found.recipes(2)
    rates = sorted(config.hidden_drop[0] for config in recipes)
    assert rates == [0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.4]
    assert {config.input_drop for config in recipes} == {0.25}
    assert {found.shape_of(config) for config in recipes} == {0, 1}
    for config in recipes:
        assert TrainingConfig.model_validate(config.model_dump()) == config
        assert found.at(found.shape_of(config), found.point(config)).max_norm == config.max_norm


def test_defaults_of_an_optimizer_are_not_given() -> None:
    axes = {axis.option: axis for axis in space(optimizer="sgd").axes}
    assert axes["learning_rate"].low < 0.05 < axes["learning_rate"].high
    assert axes["weight_decay"].low < 0.0001 < axes["weight_decay"].high
    assert "learning_rate" not in {axis.option for axis in space(optimizer="sgd", learning_rate=0.1).axes}


@pytest.mark.parametrize(("rows", "batch_size"), [(100, 16), (1000, 32), (10_000, 64), (50_000, 128)])
def test_epochs_and_batches_follow_from_the_rows(rows: int, batch_size: int) -> None:
    found = space(rows)
    shapes, explored = found.shapes, found.shapes[: found.explored]
    assert {shape[2] for shape in shapes} == {batch_size}
    assert len(set(shapes)) == len(shapes)
    assert all(5 <= epochs <= 400 for _, epochs, _ in explored)
    assert shapes[0][0] == (100, 100)
    longest = 2 * max(epochs for _, epochs, _ in explored)
    assert {epochs for _, epochs, _ in shapes[found.explored :]} == {longest}
    assert {hidden for hidden, *_ in shapes[found.explored :]} == {hidden for hidden, *_ in explored}


def test_epochs_given_are_not_doubled() -> None:
    found = space(epochs=7)
    assert found.explored == len(found.shapes) == 3


def test_rates_for_each_layer_keep_the_layers() -> None:
    found = space(hidden_drop=(0.1, 0.2))
    assert {hidden for hidden, *_ in found.shapes} == {(100, 100)}


def test_a_linear_model_has_no_hidden_rate() -> None:
    found = space(hidden=())
    assert "hidden_drop" not in {axis.option for axis in found.axes}


def test_nothing_left_to_search() -> None:
    with pytest.raises(ConfigError, match="nothing to search"):
        space(
            hidden=(8,), epochs=3, input_drop=0.1, hidden_drop=0.1, weight_decay=0.1, learning_rate=0.01,
            max_norm=3.0,
        )  # fmt: skip
