from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dropserve_models.errors import ConfigError
from dropserve_models.training.config import TrainingConfig, read_toml


def refused(**options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        TrainingConfig.from_mapping(options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_text_is_read_as_the_command_line_gives_it() -> None:
    config = TrainingConfig.from_mapping(
        {"hidden": "64, 32", "hidden_drop": "0.2,.5", "input_drop": "0.1", "nesterov": "false", "seed": "7"}
    )
    assert config.hidden == (64, 32)
    assert config.drop_rates == (0.1, 0.2, 0.5)
    assert config.seed == 7


def test_one_rate_is_for_all_hidden_layers() -> None:
    assert TrainingConfig.from_mapping({"hidden": [8, 8, 8], "hidden_drop": 0.3}).drop_rates == (
        0,
        0.3,
        0.3,
        0.3,
    )


def test_residual_connections_need_layers_to_connect() -> None:
    assert TrainingConfig.from_mapping({"residual": "true", "hidden": "9,5,5"}).residual
    message = "residual connects hidden layers of the same width, one after the other; hidden is "
    assert refused(residual=True, hidden="9,5,9") == message + "9,5,9"
    assert refused(residual=True, hidden="none") == message + "none"


@pytest.mark.parametrize("hidden", ["none", "", []])
def test_a_linear_model_has_no_hidden_layers(hidden: object) -> None:
    config = TrainingConfig.from_mapping({"hidden": hidden, "input_drop": 0.25})
    assert config.hidden == ()
    assert config.drop_rates == (0.25,)


@pytest.mark.parametrize(
    ("name", "rate"),
    [("input_drop", "1"), ("input_drop", 1), ("hidden_drop", 1.0), ("hidden_drop", "0.2,1.0")],
)
def test_a_rate_of_one_is_refused_with_its_reason(name: str, rate: object) -> None:
    assert "would drop everything" in refused(**{name: rate})


@pytest.mark.parametrize("rate", [-0.1, 1.5, "nan", "inf", float("nan"), "-0.0001", "2"])
def test_rates_outside_0_1(rate: object) -> None:
    assert "it is in [0, 1)" in refused(input_drop=rate)
    assert refused(hidden_drop=rate).startswith("hidden_drop: ")


def test_a_rate_that_is_no_number() -> None:
    assert refused(hidden_drop="half") == "hidden_drop: 'half' is not a number; a drop rate is in [0, 1)"


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("hidden", "0"),
        ("hidden", "100,-1"),
        ("hidden", "many"),
        ("activation", "sine"),
        ("task", "clustering"),
        ("max_norm", 0),
        ("max_norm", "inf"),
        ("weight_decay", -1),
        ("optimizer", "lbfgs"),
        ("momentum", 1),
        ("learning_rate", 0),
        ("learning_rate", "nan"),
        ("schedule", "random"),
        ("decay", 0),
        ("decay_epochs", 0),
        ("loss", "mae"),
        ("batch_size", 0),
        ("epochs", "1.5"),
        ("patience", 0),
        ("validation", -0.1),
        ("label_smoothing", 1),
        ("validation", 1),
        ("seed", -1),
        ("seed", 2**64),
    ],
)
def test_values_out_of_range_name_the_option(option: str, value: object) -> None:
    assert refused(**{option: value}).startswith(f"{option} is ")


def test_unknown_options_are_named_beside_the_known_ones() -> None:
    message = refused(dropout=0.5)
    assert message.startswith("unknown training option dropout; there are: task, hidden, ")


def test_contradictions() -> None:
    assert "2 rates for 3 hidden layers" in refused(hidden="8,8,8", hidden_drop="0.1,0.2")
    assert "nesterov needs optimizer sgd" in refused(nesterov=True)
    assert "nesterov needs optimizer sgd" in refused(nesterov=True, optimizer="sgd", momentum=0)


def test_defaults_depend_on_the_optimizer() -> None:
    defaults = {name: TrainingConfig.from_mapping({"optimizer": name}) for name in ("adamw", "adam", "sgd")}
    assert {name: c.learning_rate for name, c in defaults.items()} == {
        "adamw": 0.005,
        "adam": 0.005,
        "sgd": 0.05,
    }
    assert {name: c.weight_decay for name, c in defaults.items()} == {"adamw": 0.1, "adam": 1e-4, "sgd": 1e-4}
    given = TrainingConfig(optimizer="sgd", learning_rate=0.3, weight_decay=0)
    assert (given.learning_rate, given.weight_decay) == (0.3, 0)


def test_class_weights() -> None:
    assert TrainingConfig.from_mapping({"class_weights": "balanced"}).class_weights == "balanced"
    assert TrainingConfig.from_mapping({"class_weights": "1, 2.5"}).class_weights == (1.0, 2.5)
    wrong: object
    for wrong in ("even", "1", "1,-2", "1,inf", 3, []):
        assert refused(class_weights=wrong).startswith("class_weights: ")


def test_plateau_needs_a_validation_part() -> None:
    assert "validation can't be 0" in refused(schedule="plateau", validation=0)


def test_toml(tmp_path: Path) -> None:
    path = tmp_path / "options.toml"
    path.write_text("hidden = [32, 16]\nhidden_drop = 0.5\nschedule = 'cosine'\n")
    assert TrainingConfig.from_mapping(read_toml(path)).drop_rates == (0, 0.5, 0.5)
    path.write_text("hidden = [32")
    with pytest.raises(ConfigError, match="is not TOML"):
        read_toml(path)
    path.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="is not TOML"):
        read_toml(path)
    with pytest.raises(ConfigError, match=r"can't read .*missing\.toml: No such file"):
        read_toml(tmp_path / "missing.toml")
