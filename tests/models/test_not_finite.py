"""Answers that leave the range of numbers are errors that name the row."""

from __future__ import annotations

import numpy as np
import pytest

from dropserve_models.errors import InputError
from dropserve_models.prediction import MonteCarloOptions
from support.engines import model_of
from support.onnx_models import Array, constant, mlp, model, node

CLASSIFIER = mlp([6, 20, 20, 3], [0.0, 0.2, 0.5], last="Softmax").onnx()
REGRESSION = mlp([6, 20, 20, 2], [0.1, 0.2, 0.5]).onnx()


def far_away(rows: int, row: int) -> Array:
    x = np.zeros((rows, 6), np.float32)
    x[row] = 3e38
    return x


def exponential() -> bytes:
    """Regression with an exponential link, which overflows far from its data."""
    nodes = [
        node("Dropout", "features half", "d"),
        node("MatMul", "d w", "log_rate"),
        node("Exp", "log_rate", "prediction"),
    ]
    return model(nodes, [constant("half", 0.5), constant("w", np.ones((6, 1)))], 6, 1)


# With a seed: of 64 single passes one drops all that is far away, and its answer is a number.
@pytest.mark.parametrize("options", [None, MonteCarloOptions(20, seed=1), MonteCarloOptions(1, seed=1)])
@pytest.mark.parametrize("data", [CLASSIFIER, REGRESSION, exponential()], ids=["softmax", "linear", "exp"])
def test_an_answer_that_is_no_number_is_an_error_that_names_the_row(
    data: bytes, options: MonteCarloOptions | None
) -> None:
    with pytest.raises(InputError, match=r"^row 2: the model's answer is not a finite number") as caught:
        model_of(data).run(far_away(4, 2), options)
    assert caught.value.field == "inputs"


def test_a_variance_that_overflows_is_an_error_too() -> None:
    """The mean still fits into float32 where its square does not."""
    data = mlp([6, 1], [0.5]).onnx()
    x = np.zeros((3, 6), np.float32)
    x[1] = 1e25
    assert np.isfinite(model_of(data).run(x).mean).all()
    with pytest.raises(InputError, match=r"^row 1: "):
        model_of(data).run(x, MonteCarloOptions(20))


@pytest.mark.parametrize("options", [None, MonteCarloOptions(20)])
def test_a_noise_variance_that_overflows_is_an_error_too(options: MonteCarloOptions | None) -> None:
    nodes = [
        node("Dropout", "features half", "d"),
        node("MatMul", "d w", "mean"),
        node("MatMul", "d v", "log_variance"),
        node("Exp", "log_variance", "noise_variance"),
    ]
    ones = np.ones((6, 1))
    constants = [constant("half", 0.5), constant("w", 0.01 * ones), constant("v", ones)]
    data = model(nodes, constants, 6, {"mean": 1, "noise_variance": 1})
    x = np.zeros((3, 6), np.float32)
    assert model_of(data).run(x, options).aleatoric_variance is not None
    x[2] = 100.0
    with pytest.raises(InputError, match=r"^row 2: "):
        model_of(data).run(x, options)
