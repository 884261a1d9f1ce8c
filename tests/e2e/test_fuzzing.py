"""A short round of `support.fuzzing`, and that it would find something."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from random import Random

import grpc
import pytest
from google.protobuf.message import DecodeError

from support.fuzzing import OPTIONS, TARGETS, Findings, fuzz, wrong_with
from support.mutation import mutated
from support.server_process import ServerProcess, server_process

REQUESTS = 600


@pytest.fixture(scope="module")
def fuzzed(repository: Path) -> Iterator[ServerProcess]:
    with server_process(repository, *OPTIONS) as process:
        yield process


@pytest.mark.parametrize("name", TARGETS)
def test_mutated_requests_are_the_callers_doing(fuzzed: ServerProcess, name: str) -> None:
    target = TARGETS[name]
    findings = asyncio.run(fuzz(target.address(fuzzed), target, 1, REQUESTS))
    assert findings.wrong == []
    assert wrong_with(fuzzed) == []
    assert len(findings.statuses) > 1  # some are refused, and some are not


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
