"""A repository that changes under a running server."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from dropserve.v1 import administration_pb2 as admin_pb2
from dropserve.v1 import model_pb2, prediction_pb2
from dropserve.v1.administration_pb2_grpc import ModelServiceStub
from support.onnx_models import publish
from support.prediction_client import Asker, refusal_of, request
from support.replaced import ROWS, network, publish_version, until_version
from support.server_process import TIMEOUT, ServerProcess, server_process

QUICK = ("--poll-seconds", "0.05")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    publish_version(tmp_path, 1)
    return tmp_path


@pytest.fixture
def server(repository: Path) -> Iterator[ServerProcess]:
    with server_process(repository, "--admin-port", "0", *QUICK) as process:
        yield process


def administrator(server: ServerProcess) -> grpc.Channel:
    return grpc.insecure_channel(f"127.0.0.1:{server.wait_for('listening')['admin_port']}")


def test_what_is_published_is_served_and_what_is_broken_is_not(
    server: ServerProcess, repository: Path
) -> None:
    with grpc.insecure_channel(server.address) as channel:
        ask, health = Asker(channel), health_pb2_grpc.HealthStub(channel)
        publish_version(repository, 2)
        until_version(ask, 2)

        # Version 3: truncated; 4: a bit flipped; 5: another digest; 6: half copied; 7: no model at all.
        good = (repository / "net" / "2" / "model.onnx").read_bytes()
        flipped = bytearray(good)
        flipped[len(good) // 2] ^= 1
        broken = {3: good[:-100], 4: bytes(flipped), 5: network(5).onnx(), 6: good[:40]}
        for version, content in broken.items():
            shutil.copytree(repository / "net" / "2", repository / "net" / f".{version}")
            (repository / "net" / f".{version}" / "model.onnx").write_bytes(content)
            (repository / "net" / f".{version}").rename(repository / "net" / str(version))
        (repository / "net" / "7").mkdir()
        for version in range(3, 8):
            reason = server.wait_for("model failed to load", version=version)["reason"]
            assert "\n" not in reason
        until_version(ask, 2)
        # The log tells of a version before all of what was found is noted.
        scraped = server.scrape_until(
            lambda found: found['dropserve_model_failed_versions{model="net"}'] == 5
        )
        states = {
            status.version: status.state
            for status in ask.stub.ListModels(prediction_pb2.ListModelsRequest()).not_served
        }
        assert states == dict.fromkeys("34567", model_pb2.VERSION_STATE_FAILED)
        check = health_pb2.HealthCheckRequest(service="net")
        assert health.Check(check, timeout=TIMEOUT).status == health_pb2.HealthCheckResponse.SERVING  # type: ignore[attr-defined]
        assert server.healthz("?model=net") == (
            200,
            {"status": "SERVING", "failed": {"net": [3, 4, 5, 6, 7]}},
        )
        for name, status in (("net/2", "SERVING"), ("net/7", "NOT_SERVING")):
            check = health_pb2.HealthCheckRequest(service=name)
            answer = health.Check(check, timeout=TIMEOUT)  # type: ignore[attr-defined]
            assert health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status) == status
        failures = scraped['dropserve_model_load_failures_total{model="net"}']
        assert failures == 5  # and not once more at every look

        # Deleted under the server: what is in memory goes on answering until another version is there.
        shutil.rmtree(repository / "net" / "2")
        shutil.rmtree(repository / "net" / "1")
        publish_version(repository, 8)
        until_version(ask, 8)
        info = {series for series in server.scrape() if series.startswith("dropserve_model_info")}
        assert len(info) == 1
        assert 'version="8"' in info.pop()
    assert server.other_lines == []


def test_administrators_load_and_unload(server: ServerProcess, repository: Path) -> None:
    publish(repository, "other", network(9).onnx())
    with administrator(server) as admin, grpc.insecure_channel(server.address) as channel:
        orders, ask = ModelServiceStub(admin), Asker(channel)
        health = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(), timeout=TIMEOUT)  # type: ignore[attr-defined]
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING

        listed = orders.ReloadRepository(admin_pb2.ReloadRepositoryRequest(), timeout=TIMEOUT).versions
        assert [(v.name, v.version, v.state) for v in listed] == [
            ("net", "1", model_pb2.VERSION_STATE_SERVING),
            ("other", "1", model_pb2.VERSION_STATE_SERVING),
        ]
        for name in ("net", "other"):
            orders.UnloadModel(admin_pb2.UnloadModelRequest(name=name), timeout=TIMEOUT)
        refusal = ask.refused(request("net", ROWS))
        assert (refusal.code, refusal.message) == (
            grpc.StatusCode.NOT_FOUND,
            "model 'net' has been unloaded",
        )
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        orders.LoadModel(admin_pb2.LoadModelRequest(name="net"), timeout=TIMEOUT)
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        watch.cancel()
        until_version(ask, 1)

        (repository / "net" / "2").mkdir()
        for message, code in (
            (admin_pb2.LoadModelRequest(name="net", version="2"), grpc.StatusCode.FAILED_PRECONDITION),
            (admin_pb2.LoadModelRequest(name="net", version="5"), grpc.StatusCode.NOT_FOUND),
            (admin_pb2.LoadModelRequest(name="../etc"), grpc.StatusCode.NOT_FOUND),
            (admin_pb2.LoadModelRequest(name="net", version="x"), grpc.StatusCode.INVALID_ARGUMENT),
        ):
            with pytest.raises(grpc.RpcError) as failed:
                orders.LoadModel(message, timeout=TIMEOUT)
            assert refusal_of(failed.value).code is code
        versions = orders.ListVersions(admin_pb2.ListVersionsRequest(), timeout=TIMEOUT).versions
        (broken,) = (status for status in versions if status.state == model_pb2.VERSION_STATE_FAILED)
        assert "there is no" in broken.reason
        until_version(ask, 1)
        with pytest.raises(grpc.RpcError) as elsewhere:
            ModelServiceStub(channel).ListVersions(admin_pb2.ListVersionsRequest(), timeout=TIMEOUT)
        assert elsewhere.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_server_that_starts_empty_begins_to_serve(tmp_path: Path) -> None:
    with server_process(tmp_path, *QUICK, ready=False) as server:
        server.wait_for("no model is served")
        assert "admin_port" not in server.wait_for("listening")
        publish_version(tmp_path, 1)
        server.wait_until_serving()
        with grpc.insecure_channel(server.address) as channel:
            until_version(Asker(channel), 1)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_model_that_may_not_be_read_hides_no_other(repository: Path) -> None:
    (repository / "locked" / "1").mkdir(parents=True)
    (repository / "locked").chmod(0)
    try:
        with server_process(repository) as server, grpc.insecure_channel(server.address) as channel:
            assert "can't list" in server.wait_for("model failed to load", model="locked")["reason"]
            until_version(Asker(channel), 1)
    finally:
        (repository / "locked").chmod(0o755)


def test_policies_of_single_models(repository: Path, tmp_path: Path) -> None:
    publish_version(repository, 2)
    config = tmp_path / "dropserve.toml"
    config.write_text('versions = "latest:1"\n[models.net]\nversions = "all"\ndefault = 1\n')
    with (
        server_process(repository, "--config", str(config)) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        ask = Asker(channel)
        assert ask.predict("net", ROWS).version == "1"
        assert ask.predict("net", ROWS, version="2").version == "2"
    models = json.dumps({"net": {"versions": "only:1"}})
    with (
        server_process(repository, "--models", models) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        assert Asker(channel).refused(request("net", ROWS, version="2")).code is grpc.StatusCode.NOT_FOUND
