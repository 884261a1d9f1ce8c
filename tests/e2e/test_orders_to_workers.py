"""What an administrator orders of several workers: done by all, and taken back where one can't."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest

from dropserve.v1 import model_pb2
from dropserve.v1.administration_pb2 import (
    ListVersionsRequest,
    LoadModelRequest,
    ReloadRepositoryRequest,
    UnloadModelRequest,
)
from dropserve.v1.administration_pb2_grpc import ModelServiceStub
from dropserve.v1.prediction_pb2 import ListModelsRequest
from support.onnx_models import mlp, publish
from support.prediction_client import Asker, refusal_of, request
from support.server_process import TIMEOUT, ServerProcess, server_process

ROWS = [[0.1, 0.2, 0.3]]
# gRPC shares one connection between channels of equal options; these are to have their own.
OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]
CONNECTIONS = 12  # so many that no worker is without one, but once in 2000 times
LOOKING_LATE = ("--poll-seconds", "600")  # what happens is by order


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for name, version in (("net", 1), ("net", 2), ("other", 1)):
        publish(tmp_path, name, mlp([3, 4, 1], [0.1, 0.2], seed=version).onnx(), version)
    return tmp_path


@pytest.fixture
def team(repository: Path) -> Iterator[ServerProcess]:
    with server_process(repository, "--workers", "2", "--admin-port", "0", *LOOKING_LATE) as process:
        yield process


@pytest.fixture
def orders(team: ServerProcess) -> Iterator[ModelServiceStub]:
    port = team.wait_for("supervising")["admin_port"]
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield ModelServiceStub(channel)


@pytest.fixture
def askers(team: ServerProcess) -> Iterator[list[Asker]]:
    with ExitStack() as stack:
        yield [Asker(stack.enter_context(connection(team))) for _ in range(CONNECTIONS)]


def connection(team: ServerProcess) -> grpc.Channel:
    return grpc.insecure_channel(team.address, OWN_CONNECTION)


def versions(askers: list[Asker]) -> set[str]:
    """Those that answer, over all connections."""
    return {asker.predict("net", ROWS).version for asker in askers}


def is_served(asker: Asker, version: str) -> bool:
    listed = asker.stub.ListModels(ListModelsRequest(), timeout=TIMEOUT)
    return any((model.name, model.version) == ("net", version) for model in listed.models)


def test_an_order_is_followed_by_every_worker(
    team: ServerProcess, orders: ModelServiceStub, askers: list[Asker], repository: Path
) -> None:
    assert versions(askers) == {"2"}
    publish(repository, "net", mlp([3, 4, 1], [0.1, 0.2], seed=3).onnx(), 3)
    answer = orders.LoadModel(LoadModelRequest(name="net"), timeout=TIMEOUT)
    assert [(v.version, v.state) for v in answer.versions if v.is_default] == [
        ("3", model_pb2.VERSION_STATE_SERVING)
    ]
    assert versions(askers) == {"3"}
    orders.UnloadModel(UnloadModelRequest(name="net", version="3"), timeout=TIMEOUT)
    assert versions(askers) == {"2"}
    assert len(orders.ReloadRepository(ReloadRepositoryRequest(), timeout=TIMEOUT).versions) == 4
    assert versions(askers) == {"2"}

    # Where none of them can, it is told as by one server.
    (repository / "net" / "4").mkdir()
    for order, code, message in (
        (
            LoadModelRequest(name="net", version="4"),
            grpc.StatusCode.FAILED_PRECONDITION,
            "version 4 can't be loaded",
        ),
        (LoadModelRequest(name="new"), grpc.StatusCode.NOT_FOUND, "no model 'new'; it has: net, other"),
        (
            LoadModelRequest(name="net", version="x"),
            grpc.StatusCode.INVALID_ARGUMENT,
            "not a positive integer",
        ),
    ):
        with pytest.raises(grpc.RpcError) as failed:
            orders.LoadModel(order, timeout=TIMEOUT)
        refusal = refusal_of(failed.value)
        assert refusal.code is code
        assert message in refusal.message
    listed = orders.ListVersions(ListVersionsRequest(), timeout=TIMEOUT).versions
    assert {(v.name, v.version): v.state for v in listed} == {
        ("net", "1"): model_pb2.VERSION_STATE_UNLOADED,
        ("net", "2"): model_pb2.VERSION_STATE_SERVING,
        ("net", "3"): model_pb2.VERSION_STATE_UNLOADED,
        ("net", "4"): model_pb2.VERSION_STATE_FAILED,
        ("other", "1"): model_pb2.VERSION_STATE_SERVING,
    }


def test_who_takes_a_dead_ones_place_holds_to_the_orders(
    team: ServerProcess, orders: ModelServiceStub
) -> None:
    orders.UnloadModel(UnloadModelRequest(name="other"), timeout=TIMEOUT)
    orders.UnloadModel(UnloadModelRequest(name="net", version="2"), timeout=TIMEOUT)
    for restarts, victim in enumerate(team.workers().values(), 1):  # in the end nobody is left who was there
        os.kill(victim, signal.SIGKILL)
        team.scrape_until(
            lambda found, restarts=restarts: (  # type: ignore[misc]
                found["dropserve_worker_restarts_total"] == restarts and found["dropserve_workers"] == 2
            )
        )
    with ExitStack() as stack:
        askers = [Asker(stack.enter_context(connection(team))) for _ in range(CONNECTIONS)]
        assert versions(askers) == {"1"}
        for asker in askers:
            assert asker.refused(request("other", ROWS)).message == "model 'other' has been unloaded"


def test_what_one_worker_can_not_do_no_other_keeps(
    team: ServerProcess, orders: ModelServiceStub, askers: list[Asker]
) -> None:
    orders.ListVersions(ListVersionsRequest(), timeout=TIMEOUT)  # connected
    assert versions(askers) == {"2"}
    load = LoadModelRequest(name="net", version="1")
    victim = team.workers()[2]
    usual = resource.prlimit(victim, resource.RLIMIT_NOFILE)
    resource.prlimit(victim, resource.RLIMIT_NOFILE, (3, usual[1]))  # it can open no file now
    try:
        with pytest.raises(grpc.RpcError) as failed:
            orders.LoadModel(load, timeout=TIMEOUT)
        refusal = refusal_of(failed.value)
        assert refusal.code is grpc.StatusCode.FAILED_PRECONDITION
        assert "Too many open files" in refusal.message
    finally:
        resource.prlimit(victim, resource.RLIMIT_NOFILE, usual)
    assert not any(is_served(asker, "1") for asker in askers)
    assert versions(askers) == {"2"}
    orders.LoadModel(load, timeout=TIMEOUT)
    assert all(is_served(asker, "1") for asker in askers)
