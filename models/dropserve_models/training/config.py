"""Training options: their meaning, defaults and limits."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from dropserve_models.errors import ConfigError

Activation = Literal["relu", "leaky_relu", "tanh", "gelu", "silu"]
Optimizer = Literal["adamw", "adam", "sgd"]
Norm = Literal["none", "batch", "layer"]
Schedule = Literal["onecycle", "cosine", "exponential", "step", "plateau", "constant"]

LARGEST_WIDTH = 2**16


def _split(value: object) -> object:
    """Read "100,50" as a command line gives it; a number alone is a list of one."""
    if isinstance(value, str):
        return () if value.strip() in ("", "none") else tuple(part.strip() for part in value.split(","))
    return (value,) if isinstance(value, int | float) else value


def _class_weights(value: object) -> object:
    if value in ("none", "balanced"):
        return value
    try:
        weights = tuple(float(weight) for weight in _split(value))  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        weights = ()
    if len(weights) < 2 or not all(0.0 < weight < math.inf for weight in weights):
        raise ValueError(f"{value!r} is neither none nor balanced nor a positive number for each class")
    return weights


def _rate(value: object) -> float:
    try:
        rate = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise ValueError(f"{value!r} is not a number; a drop rate is in [0, 1)") from None
    if rate == 1.0:
        raise ValueError("a drop rate of 1 would drop everything: nothing could be learned; it is in [0, 1)")
    if not 0.0 <= rate < 1.0:
        raise ValueError(f"{value} is not a drop rate: it is in [0, 1), the probability of zeroing a unit")
    return rate


def _calibration(value: object) -> object:
    if value in ("auto", "cv", "none"):
        return value
    try:
        fraction = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        fraction = 0.0
    if not 0.0 < fraction < 1.0:
        raise ValueError(
            f"{value!r} is neither auto, cv nor none nor a fraction of the rows, above 0 and below 1"
        )
    return fraction


DropRate = Annotated[float, BeforeValidator(_rate)]
Width = Annotated[int, Field(ge=1, le=LARGEST_WIDTH)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Calibration = Annotated[Literal["auto", "cv", "none"] | float, BeforeValidator(_calibration)]
ClassWeights = Annotated[Literal["none", "balanced"] | tuple[float, ...], BeforeValidator(_class_weights)]


_DEFAULTS_OF = {
    "adam": {"weight_decay": 0.0001},
    "sgd": {"weight_decay": 0.0001, "learning_rate": 0.05},
}


class TrainingConfig(BaseModel):
    """How to train; the defaults are meant to do well on a table nobody tuned for.

    Raises ``ConfigError`` by way of `from_mapping`, ``pydantic.ValidationError`` when built directly.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: Literal["auto", "regression", "binary", "multiclass"] = "auto"
    """What to learn; auto reads it off the target column."""
    hidden: Annotated[tuple[Width, ...], BeforeValidator(_split), Field(max_length=32)] = (100, 100)
    """Units of each hidden layer; none for a linear model."""
    activation: Activation = "relu"
    """After each hidden layer."""
    norm: Norm = "none"
    """Of each hidden layer, before its activation: batch norm (Ioffe & Szegedy 2015) or layer norm (Ba et al.
    2016)."""
    residual: bool = False
    """Whether a hidden layer as wide as the one before adds that one's values to its own (He et al. 2016)."""
    input_drop: DropRate = 0.0
    """Probability of zeroing an input feature (after standardisation)."""
    hidden_drop: Annotated[tuple[DropRate, ...], BeforeValidator(_split)] = (0.1,)
    """Probability of zeroing a hidden unit: one rate for each hidden layer, or one for all."""
    embedding_width: Annotated[int, Field(ge=0, le=LARGEST_WIDTH)] | None = None
    """Units of the embedding of every categorical column; 0: one-hot. None: one-hot up to 20 categories, and
    above 1.6 n^.56 units, at most 50."""
    level_off: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 5.0
    """Standard deviations from the mean that numbers level off at, before the first hidden layer; 0 for
    none."""
    max_norm: Positive | None = None
    """Largest norm of a hidden unit's incoming weights (Srivastava et al. 2014; Keras' MaxNorm)."""
    weight_decay: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 0.1
    """Decoupled for adamw, an L2 penalty for adam and sgd (0.0001 by default); biases are exempt."""
    optimizer: Optimizer = "adamw"
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    """Of sgd."""
    nesterov: bool = False
    """Nesterov momentum, of sgd."""
    learning_rate: Positive = 0.005
    """The highest of the schedule (0.05 for sgd by default)."""
    schedule: Schedule = "onecycle"
    decay: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """Factor on the learning rate every `decay_epochs` (exponential: gradually; step: at once; plateau:
    after as many epochs without a better validation loss)."""
    decay_epochs: Annotated[int, Field(ge=1)] = 20
    loss: Literal["beta_nll", "mse"] = "beta_nll"
    """Of regression: mean and noise variance (Seitzer et al. 2022), or the mean alone."""
    batch_size: Annotated[int, Field(ge=1)] = 64
    epochs: Annotated[int, Field(ge=1, le=1_000_000)] = 200
    patience: Annotated[int, Field(ge=1)] = 50
    """Epochs without a better validation loss after which training stops."""
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Of classifiers: part of each label that is spread evenly over all classes in training."""
    class_weights: ClassWeights = "none"
    """Of classifiers: how much each class's rows count in the loss, in the order of the classes; balanced:
    each class as much as any other."""
    validation: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.2
    """Fraction of the rows held out to choose the best epoch and to report metrics on; 0 to learn from all
    rows, in every epoch, and keep the last."""
    calibration: Calibration = "auto"
    """How to calibrate: on a fraction of the rows that is held out from all else, by the folds of a
    cross-validation (cv), not at all (none); auto: cv where rows are few, else a tenth of them."""
    seed: Annotated[int, Field(ge=0, lt=2**64)] = 0

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_optimizer(cls, options: Any) -> Any:
        if not isinstance(options, dict):
            return options
        return _DEFAULTS_OF.get(str(options.get("optimizer")), {}) | options

    @model_validator(mode="after")
    def _one_rate_for_each_hidden_layer(self) -> Self:
        if len(self.hidden_drop) not in (1, len(self.hidden)):
            raise ValueError(
                f"hidden_drop has {len(self.hidden_drop)} rates for {len(self.hidden)} hidden layers: "
                "give one for each, or one for all"
            )
        if self.residual and not any(one == other for one, other in pairwise(self.hidden)):
            raise ValueError(
                "residual connects hidden layers of the same width, one after the other; "
                f"hidden is {','.join(map(str, self.hidden)) or 'none'}"
            )
        if self.nesterov and (self.optimizer != "sgd" or self.momentum == 0.0):
            raise ValueError("nesterov needs optimizer sgd with a momentum above 0")
        if self.schedule == "plateau" and self.validation == 0.0:
            raise ValueError("schedule plateau goes by the validation loss: validation can't be 0")
        return self

    @property
    def drop_rates(self) -> tuple[float, ...]:
        """The rate on the input of each linear layer: of the features, then of each hidden layer."""
        hidden = self.hidden_drop * len(self.hidden) if len(self.hidden_drop) == 1 else self.hidden_drop
        return (self.input_drop, *hidden)

    @property
    def given(self) -> frozenset[str]:
        """The options that it was made with, without defaults of the optimizer's."""
        defaults = _DEFAULTS_OF.get(self.optimizer, {})
        return frozenset(
            name
            for name in self.model_fields_set
            if name not in defaults or getattr(self, name) != defaults[name]
        )

    @classmethod
    def from_mapping(cls, options: Mapping[str, Any]) -> Self:
        """Check options by name; text is read as the option's type.

        Raises
        ------
        ConfigError
            An option is unknown, out of range, or contradicts another.
        """
        unknown = sorted(options.keys() - cls.model_fields.keys())
        if unknown:
            raise ConfigError(
                f"unknown training option {', '.join(unknown)}; there are: {', '.join(cls.model_fields)}"
            )
        try:
            return cls.model_validate(dict(options))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            reason = first["msg"].removeprefix("Value error, ")
            if not first["loc"]:
                raise ConfigError(reason) from error
            if first["type"] == "value_error":
                raise ConfigError(f"{first['loc'][0]}: {reason}") from error
            reason = reason.replace("Input should", "it should").replace("Input", "it")
            raise ConfigError(f"{first['loc'][0]} is {first['input']!r}: {reason}") from error


def read_toml(path: str | Path) -> dict[str, Any]:
    """Training options from a flat TOML file.

    Raises
    ------
    ConfigError
        The file is missing or not TOML.
    """
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"can't read {path}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
