"""A request computed in steps, between which others have their turn."""

from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields

import numpy as np
import pytest
import torch

from dropserve_models.errors import InputError
from dropserve_models.inference import engine as engine_module
from dropserve_models.inference.blocks import BlockMasks, RequestMasks
from dropserve_models.inference.whole import Whole
from dropserve_models.inference.workspace import Workspace
from dropserve_models.model import Model
from dropserve_models.prediction import Masks, MonteCarloOptions, Prediction
from support.engines import Array, model_of
from support.onnx_models import mlp

NETWORKS = {
    "30-64-64-2": mlp([30, 64, 64, 2], [0.0, 0.2, 0.5], last="Softmax").onnx(),
    "30-100-100-1": mlp([30, 100, 100, 1], [0.0, 0.5, 0.5]).onnx(),
    "30-300-300-5": mlp([30, 300, 300, 5], [0.0, 0.2, 0.5], last="Softmax").onnx(),  # thinned from 16 rows
}
OPTIONS = [
    MonteCarloOptions(450, 3),
    MonteCarloOptions(430, 4, (0.1, 0.5), return_samples=True),
    MonteCarloOptions(450, 5, masks="independent"),
    MonteCarloOptions(2000, 6, mean_tolerance=0.005),
]


@pytest.fixture(params=NETWORKS, scope="module")
def model(request: pytest.FixtureRequest) -> Model:
    return model_of(NETWORKS[request.param])


def rows(count: int) -> Array:
    return np.random.default_rng(7).standard_normal((count, 30)).astype(np.float32)


def equal(one: Prediction, other: Prediction) -> None:
    for field in fields(Prediction):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name), field.name)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("count", [1, 40])
def test_the_answer_is_the_same_whoever_takes_the_steps(
    model: Model, options: MonteCarloOptions, count: int
) -> None:
    whole = model.run(rows(count), options)
    steps = model.steps(rows(count), options)
    taken: list[Prediction | None] = []
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other:
        while not taken or taken[-1] is None:
            thread = (one, other)[len(taken) % 2]
            taken.append(thread.submit(next, steps).result())
            # Others compute meanwhile.
            model.run(rows(3), MonteCarloOptions(20, 9))
    assert len(taken) >= (3 if options.adaptive else 5)
    assert taken[-1] is not None
    equal(taken[-1], whole)
    with pytest.raises(StopIteration):
        next(steps)


def test_without_a_seed_there_are_pauses_too(model: Model) -> None:
    *pauses, answer = model.steps(rows(64), MonteCarloOptions(1000))
    assert len(pauses) >= 10
    assert answer is not None
    assert answer.passes == 1000
    expected = model.run(rows(64), MonteCarloOptions(1000, seed=1))
    assert expected.variance is not None
    assert answer.standard_error is not None
    assert expected.standard_error is not None
    errors = np.hypot(answer.standard_error, expected.standard_error)
    assert (np.abs(answer.mean - expected.mean) < 6 * errors + 1e-6).all()


def test_a_pause_leaves_torch_as_it_was_and_holds_no_masks() -> None:
    model = model_of(NETWORKS["30-300-300-5"])
    model.prepare_monte_carlo()
    gc.collect()
    before = sum(type(each) is BlockMasks for each in gc.get_objects())
    steps = model.steps(rows(64), MonteCarloOptions(1000))
    torch.set_num_threads(3)
    for _ in range(4):
        assert next(steps) is None
        assert torch.get_num_threads() == 3
        assert not torch.is_inference_mode_enabled()
        gc.collect()
        assert sum(type(each) is BlockMasks for each in gc.get_objects()) <= before
    steps.close()  # type: ignore[attr-defined]  # a generator
    equal(model.run(rows(5), OPTIONS[0]), model.run(rows(5), OPTIONS[0]))


@pytest.mark.parametrize("kept", [2**18, 2**25])
def test_requests_that_pause_hold_no_more_than_the_bank_keeps(
    kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside which units each of their passes drops; and go on to the same bytes."""
    others = [each for each in gc.get_objects() if type(each) is RequestMasks]
    monkeypatch.setattr(engine_module, "BANK_BYTES", kept)
    model = model_of(NETWORKS["30-300-300-5"])
    asked = [MonteCarloOptions(150, seed) for seed in range(6)]
    expected = [model.run(rows(64), options) for options in asked]
    paused = [model.steps(rows(64), options) for options in asked]
    assert [next(steps) for steps in paused] == [None] * len(paused)
    gc.collect()
    held = [each for each in gc.get_objects() if type(each) is RequestMasks and each not in others]
    assert len(held) >= len(asked)
    marks = [marks.nbytes for masks in held for each in masks for marks in each._marks if marks is not None]
    assert sum(masks.nbytes for masks in held) <= kept + sum(marks)
    for steps, answer in zip(paused, expected, strict=True):
        *_, last = steps
        assert last is not None
        equal(last, answer)


def test_what_is_no_number_is_refused_at_the_end() -> None:
    model = model_of(NETWORKS["30-100-100-1"])
    features = rows(20)
    features[13] = 3e38
    with pytest.raises(InputError, match="row 13: the model's answer is not a finite number"):
        for _ in model.steps(features, MonteCarloOptions(300, 1)):
            pass
    with pytest.raises(InputError, match="passes"):
        next(model.steps(rows(1), MonteCarloOptions(0)))


@pytest.mark.parametrize("fitting", [1000, 32])
@pytest.mark.parametrize("masks", ["stratified", "independent"])
@pytest.mark.parametrize("name", NETWORKS)
def test_parts_of_a_request_without_a_seed_share_its_masks(
    name: str, masks: Masks, fitting: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever way the whole is computed in; and another request has others."""
    monkeypatch.setattr(Workspace, "rows", lambda *_: fitting)  # in the memory limit
    model = model_of(NETWORKS[name])
    features, options = rows(96), MonteCarloOptions(30, masks=masks, return_samples=True)

    def samples(whole: Whole, start: int, stop: int) -> Array:
        *_, answer = model.steps(features[start:stop], options, whole)
        assert answer is not None
        assert answer.samples is not None
        return answer.samples

    one, other = Whole(96), Whole(96)
    parts = [samples(one, 0, 16), samples(one, 16, 64), samples(one, 64, 96)]
    together = samples(one, 0, 96)
    np.testing.assert_allclose(np.concatenate(parts, axis=1), together, rtol=1e-4, atol=1e-5)
    assert np.abs(samples(other, 0, 96) - together).max() > 0.01
