"""A short round of `support.fuzzing`, and that it would find something."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from random import Random

import grpc
import numpy as np
import pytest
from google.protobuf.message import DecodeError

from dropserve.v1.prediction_pb2 import PredictRequest
from support import fuzzed_repository
from support.fuzzing import GROWTH, OPTIONS, TARGETS, Findings, fuzz, wrong_with
from support.mutation import mutated
from support.prediction_client import Asker, array_of
from support.server_process import ServerProcess, server_process

REQUESTS = 300
FEW = 50


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    repository = fuzzed_repository.fill(tmp_path_factory.mktemp("fuzzed"))
    with server_process(repository, *OPTIONS) as process:
        yield process


@pytest.mark.parametrize("name", TARGETS)
def test_mutated_requests_are_the_callers_doing(fuzzed: ServerProcess, name: str) -> None:
    target = TARGETS[name]
    findings = asyncio.run(fuzz(target.address(fuzzed), target, 1, REQUESTS))
    assert findings.wrong == []
    assert wrong_with(fuzzed) == []
    assert len(findings.statuses) > 1  # some are refused, and some are not


def test_memory_does_not_grow_with_requests(fuzzed: ServerProcess) -> None:
    def send(seed: int) -> None:
        for target in TARGETS.values():
            findings = asyncio.run(fuzz(target.address(fuzzed), target, seed, FEW))
            assert findings.wrong == []

    for seed in (2, 3):  # what grows once has grown
        send(seed)
    settled = fuzzed.resident_bytes()
    for seed in (4, 5, 6):
        send(seed)
    assert fuzzed.resident_bytes() < GROWTH * settled


@pytest.mark.parametrize(("name", "interval"), [("calibrated", 0.5), ("mixed", 0.0)])
def test_what_is_fuzzed_is_answered_as_it_is(fuzzed: ServerProcess, name: str, interval: float) -> None:
    with grpc.insecure_channel(fuzzed.address) as channel:
        good = [each for each in TARGETS["predict"].seeds if isinstance(each, PredictRequest)]
        asked = [each for each in good if each.model == name]
        assert {each.HasField("monte_carlo") for each in asked} == {True, False}
        for each in asked:
            answer = Asker(channel).stub.Predict(each, timeout=60)
            assert np.isfinite(array_of(answer.mean)).all()
            assert answer.HasField("interval_lower") == (interval > 0)


def test_mutations_are_of_every_kind_and_the_same_for_a_seed() -> None:
    target = TARGETS["predict"]
    seen = [mutated(target.seeds, random) for random in [Random(3)] for _ in range(2000)]
    assert seen[:50] == [mutated(target.seeds, random) for random in [Random(3)] for _ in range(50)]
    assert len(set(seen)) > 1500
    decoded = []
    for message in seen:
        try:
            decoded.append(type(target.seeds[0]).FromString(message))
        except DecodeError:
            continue
    assert 200 < len(decoded) < 1990
    for field in target.seeds[0].DESCRIPTOR.fields:
        if field.name == "deterministic":
            continue  # a message without fields
        values = {str(getattr(message, field.name)) for message in decoded}
        assert len(values) > 3, field.name


def test_what_should_not_be_answered_is_found() -> None:
    findings = Findings()
    findings.note(grpc.StatusCode.OK, "", b"")
    findings.note(grpc.StatusCode.NOT_FOUND, "one line", b"")
    assert findings.wrong == []
    findings.note(grpc.StatusCode.INTERNAL, "", b"x")
    findings.note(grpc.StatusCode.UNKNOWN, "", b"y")
    findings.note(grpc.StatusCode.NOT_FOUND, "two\nlines", b"z")
    assert len(findings.wrong) == 3
