"""Orders to an admin port, from Python and from the command line."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from dropserve.v1 import administration_pb2 as pb2
from dropserve.v1 import model_pb2
from dropserve.v1.administration_pb2_grpc import ModelServiceServicer, add_ModelServiceServicer_to_server
from dropserve_client import Administrator, Client, InputError, LoadFailedError, NotFoundError, VersionStatus
from dropserve_client.cli.main import main

SERVED = model_pb2.VersionStatus(
    name="m", version="2", state=model_pb2.VERSION_STATE_SERVING, is_default=True
)
BROKEN = model_pb2.VersionStatus(
    name="m", version="3", state=model_pb2.VERSION_STATE_FAILED, reason="model.onnx is damaged"
)


class FakeAdministration(ModelServiceServicer):
    """Says what is in the repository, and writes down what was ordered."""

    def __init__(self) -> None:
        self.orders: list[Any] = []

    def ListVersions(self, request: Any, context: Any) -> pb2.ListVersionsResponse:
        self.orders.append(request)
        return pb2.ListVersionsResponse(versions=[SERVED, BROKEN])

    def LoadModel(self, request: Any, context: Any) -> pb2.LoadModelResponse:
        self.orders.append(request)
        if request.version == "3":
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "version 3 can't be loaded: it is damaged")
        if request.name != "m":
            context.abort(grpc.StatusCode.NOT_FOUND, "the repository has no model 'x'; it has: m")
        return pb2.LoadModelResponse(versions=[SERVED])

    def UnloadModel(self, request: Any, context: Any) -> pb2.UnloadModelResponse:
        self.orders.append(request)
        return pb2.UnloadModelResponse(versions=[SERVED])

    def ReloadRepository(self, request: Any, context: Any) -> pb2.ReloadRepositoryResponse:
        self.orders.append(request)
        return pb2.ReloadRepositoryResponse(versions=[BROKEN])


@pytest.fixture
def fake() -> FakeAdministration:
    return FakeAdministration()


@pytest.fixture
def admin_address(fake: FakeAdministration) -> Iterator[str]:
    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool)
        add_ModelServiceServicer_to_server(fake, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(None).wait(10)


def test_orders_travel_and_versions_come_back(admin_address: str, fake: FakeAdministration) -> None:
    served = VersionStatus("m", "2", "serving", "", True)
    broken = VersionStatus("m", "3", "failed", "model.onnx is damaged", False)
    with Client(admin_address) as client:
        administrator = Administrator(client)
        assert administrator.list_versions() == [served, broken]
        assert administrator.load_model("m", version=2) == [served]
        assert administrator.unload_model("m") == [served]
        assert administrator.reload_repository() == [broken]
        with pytest.raises(LoadFailedError, match="version 3 can't be loaded: it is damaged") as failed:
            administrator.load_model("m", version="3")
        assert failed.value.code is grpc.StatusCode.FAILED_PRECONDITION
        with pytest.raises(NotFoundError, match="it has: m"):
            administrator.load_model("x")
        with pytest.raises(InputError):
            administrator.load_model("")
    assert fake.orders[:4] == [
        pb2.ListVersionsRequest(),
        pb2.LoadModelRequest(name="m", version="2"),
        pb2.UnloadModelRequest(name="m"),
        pb2.ReloadRepositoryRequest(),
    ]


@pytest.mark.parametrize(
    ("command", "order"),
    [
        (["load", "m"], pb2.LoadModelRequest(name="m")),
        (["load", "m", "--version", "2"], pb2.LoadModelRequest(name="m", version="2")),
        (["unload", "m", "--version", "2"], pb2.UnloadModelRequest(name="m", version="2")),
        (["reload"], pb2.ReloadRepositoryRequest()),
        (["versions"], pb2.ListVersionsRequest()),
    ],
)
def test_orders_by_command(
    command: list[str],
    order: object,
    admin_address: str,
    fake: FakeAdministration,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["models", *command, "--admin-server", admin_address]) == 0
    assert fake.orders == [order]
    out, err = capsys.readouterr()
    assert out.splitlines()[0].split() == ["name", "version", "state", "reason"]
    assert "2 (default)  serving" in out or "3        failed  model.onnx is damaged" in out
    assert err == ""


@pytest.mark.parametrize(
    ("command", "status", "message"),
    [
        (["load"], 2, "load whom? dropserve models load MODEL"),
        (["reload", "m"], 2, "reload takes no model"),
        (["--version", "2"], 2, "--version goes with load and unload"),
        (["load", "m", "--version", "3"], 1, "version 3 can't be loaded: it is damaged"),
        (["load", "x"], 2, "the repository has no model 'x'; it has: m"),
    ],
)
def test_what_goes_wrong_is_told_in_one_line(
    command: list[str], status: int, message: str, admin_address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", *command, "--admin-server", admin_address]) == status
    assert capsys.readouterr() == ("", f"dropserve models: {message}\n")


def test_the_port_of_predictions_takes_no_orders(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "reload", "--admin-server", address]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(
        f"dropserve models: the server at {address} is no dropserve server, or an older one: "
    )
    assert err.endswith("; is this its admin port?\n")
