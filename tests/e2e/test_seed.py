"""A seed's bytes from real servers, shuffled: threads, workers, load, batches and slices change none."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import grpc
import numpy as np
import pytest

from dropserve.v1 import prediction_pb2
from dropserve.v1.prediction_pb2 import MonteCarlo, PredictResponse
from dropserve_models import Prediction, load
from dropserve_models.prediction import Masks
from support.onnx_models import Array, mlp, publish
from support.prediction_client import Asker, array_of
from support.server_process import server_process

NETWORKS = {
    "wide": mlp([784, 256, 256, 10], [0.0, 0.2, 0.5], last="Softmax"),
    "narrow": mlp([10, 100, 100, 1], [0.1, 0.5, 0.5]),
}
ROWS = 200
FIELDS = ("mean", "variance", "standard_error", "std_standard_error", "mutual_information")
MASKS: dict[Masks, prediction_pb2.Masks.ValueType] = {
    "stratified": prediction_pb2.MASKS_STRATIFIED,
    "independent": prediction_pb2.MASKS_INDEPENDENT,
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    repository = tmp_path_factory.mktemp("repository")
    for name, network in NETWORKS.items():
        publish(repository, name, network.onnx())
    return repository


@pytest.fixture(scope="module")
def answers(models: Path) -> dict[tuple[str, Masks, int], Prediction]:
    """Of the library in this process, on one thread, by model, masks and seed."""
    loaded = {name: load(models / name / "1", threads=1) for name in NETWORKS}
    return {
        (name, masks, seed): model.predict(features(name), passes=60, seed=seed, masks=masks)
        for name, model in loaded.items()
        for masks in MASKS
        for seed in (0, 2**64 - 1)
    }


@pytest.fixture(params=["--threads 1", "--threads 2 --workers 2"])
def ask(request: pytest.FixtureRequest, models: Path) -> Iterator[Asker]:
    with (
        server_process(models, *request.param.split()) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        yield Asker(channel)


def features(name: str) -> Array:
    width = len(NETWORKS[name].weights[0])
    return np.random.default_rng(0).standard_normal((ROWS, width)).astype(np.float32)


def test_the_bytes_are_those_of_the_library(
    ask: Asker, answers: dict[tuple[str, Masks, int], Prediction]
) -> None:
    """Among requests with other seeds and without, of one row or so many that they are cut into slices."""
    order = Random(0)
    cases = [case for case in answers for _ in range(4)]
    chosen = [order.sample(range(ROWS), order.choice([1, 7, 64, ROWS])) for _ in cases]

    def seeded(number: int) -> list[str]:
        name, masks, seed = cases[number]
        options = MonteCarlo(passes=60, seed=seed, masks=MASKS[masks])
        response = ask.predict(name, features(name)[chosen[number]], options)
        return differing(response, answers[cases[number]], chosen[number])

    def other(number: int) -> None:
        name = list(NETWORKS)[number % 2]
        ask.predict(name, features(name)[: 1 + number % 40], MonteCarlo(passes=60))

    with ThreadPoolExecutor(8) as pool, ThreadPoolExecutor(4) as beside:
        noise = beside.map(other, range(100))
        found = list(pool.map(seeded, order.sample(range(len(cases)), len(cases))))
        list(noise)
    assert found == [[]] * len(cases)


def differing(response: PredictResponse, whole: Prediction, rows: list[int]) -> list[str]:
    """The fields that are not, to the byte, those of some rows of the library's answer."""
    return [
        field
        for field in FIELDS
        if (expected := getattr(whole, field)) is not None
        and array_of(getattr(response, field)).tobytes() != expected[rows].tobytes()
    ]
