"""Versions replaced under load: each answer is wholly one version's, and none stays in memory."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import grpc
import grpc.aio
import numpy as np

from dropserve.v1 import administration_pb2 as admin_pb2
from dropserve.v1.administration_pb2_grpc import ModelServiceStub
from dropserve.v1.prediction_pb2 import MonteCarlo
from dropserve.v1.prediction_pb2_grpc import PredictionServiceStub
from dropserve_models import load
from dropserve_models.prediction import MonteCarloOptions
from support.prediction_client import Asker, array_of, request
from support.replaced import ROWS, publish_version
from support.server_process import TIMEOUT, ServerProcess, server_process

LARGE = np.random.default_rng(1).standard_normal((300, 6)).astype(np.float32)
QUESTIONS = {  # computed on the event loop, by a worker, and cut into slices
    "plain": request("net", ROWS),
    "with error bars": request("net", ROWS, MonteCarlo(passes=20, seed=1)),
    "large": request("net", LARGE, MonteCarlo(passes=500, seed=2)),
}
REPLACEMENTS = 100
CLIENTS = 6
GROWTH = 1.05  # of resident memory, over the second half of the replacements


Means = dict[str, dict[str, list[np.ndarray]]]
"""What the clients were told: by kind of question and version, every mean."""


def learn(folder: Path, known: Means) -> None:
    """Note what a version says to every question."""
    model = load(folder, device="cpu", threads=1)
    for kind, question in QUESTIONS.items():
        options = None
        if question.HasField("monte_carlo"):
            asked = question.monte_carlo
            options = MonteCarloOptions(passes=asked.passes, seed=asked.seed)
        known.setdefault(kind, {})[folder.name] = [model.run(array_of(question.inputs), options).mean]


async def questions(server: ServerProcess, done: asyncio.Event, client: int, told: Means) -> int:
    """Ask the same until it is `done`; how often that was answered."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    kind = list(QUESTIONS)[client % len(QUESTIONS)]
    means = told.setdefault(kind, {})
    count = 0
    async with grpc.aio.insecure_channel(server.address, options=options) as channel:
        stub = PredictionServiceStub(channel)
        while not done.is_set():
            answer = await stub.Predict(QUESTIONS[kind], timeout=TIMEOUT)
            means.setdefault(answer.version, []).append(array_of(answer.mean))
            count += 1
    return count


def check_that_each_is_wholly_from_one_version(told: Means, known: Means) -> None:
    """Each answer is its version's own: computed here from the same file."""
    for kind, versions in told.items():
        for version, means in versions.items():
            (mean,) = known[kind][version]
            for each in means:
                np.testing.assert_allclose(each, mean, rtol=1e-4, atol=1e-5)
    assert set(told) == set(QUESTIONS)


async def replacements(
    server: ServerProcess, repository: Path, done: asyncio.Event, known: Means
) -> list[int]:
    """Publish version after version, and note what it says; the server's resident bytes after each."""
    memory = []
    port = server.wait_for("listening")["admin_port"]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = ModelServiceStub(channel)
        for version in range(2, REPLACEMENTS + 2):
            learn(publish_version(repository, version), known)
            answer = await stub.LoadModel(admin_pb2.LoadModelRequest(name="net"), timeout=TIMEOUT)
            (default,) = (status for status in answer.versions if status.is_default)
            assert default.version == str(version)
            shutil.rmtree(repository / "net" / str(version - 1))
            memory.append(server.resident_bytes())
    done.set()
    return memory


def test_a_version_replaced_100_times_under_load(tmp_path: Path) -> None:
    publish_version(tmp_path, 1)
    with server_process(tmp_path, "--admin-port", "0", "--poll-seconds", "0") as server:
        told: Means = {}
        known: Means = {}
        learn(tmp_path / "net" / "1", known)

        # Importing torch takes memory for seconds; what counts here is what versions take.
        with grpc.insecure_channel(server.address) as channel:
            Asker(channel).predict("net", ROWS, MonteCarlo(passes=20, seed=1))

        async def life() -> tuple[list[int], int]:
            done = asyncio.Event()
            clients = [
                asyncio.ensure_future(questions(server, done, client, told)) for client in range(CLIENTS)
            ]
            memory = await replacements(server, tmp_path, done, known)
            return memory, sum(await asyncio.gather(*clients))

        memory, answered = asyncio.run(life())
        assert {event["event"] for event in server.log} & {"request failed", "model failed to load"} == set()
        loaded = {s for s in server.scrape() if s.startswith("dropserve_model_info")}
        assert len(loaded) == 1
        assert server.stop() == 0
    check_that_each_is_wholly_from_one_version(told, known)
    assert answered > REPLACEMENTS
    assert len(set().union(*told.values())) > REPLACEMENTS // 4
    assert memory[-1] < GROWTH * memory[REPLACEMENTS // 2], "versions that are gone still take memory"
