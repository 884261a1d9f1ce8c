"""grpc.health.v1, reflection, and the health check of the container."""

from __future__ import annotations

import subprocess
import sys

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from dropserve.inference import service_pb2
from dropserve.v1 import prediction_pb2
from support.prediction_client import Asker
from support.server_process import ServerProcess, environment

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
TIMEOUT = 60.0


@pytest.mark.parametrize(
    ("service", "status"),
    [
        ("", SERVING),
        ("dropserve.v1.PredictionService", SERVING),
        ("inference.GRPCInferenceService", SERVING),
        ("targets", SERVING),
        ("wave", SERVING),
        ("damaged", NOT_SERVING),
        ("targets/2", SERVING),
        ("damaged/1", NOT_SERVING),
    ],
)
def test_check_overall_and_per_model(ask: Asker, service: str, status: int) -> None:
    health = health_pb2_grpc.HealthStub(ask.channel)
    request = health_pb2.HealthCheckRequest(service=service)
    assert health.Check(request, timeout=TIMEOUT).status == status  # type: ignore[attr-defined]
    watch = health.Watch(request, timeout=TIMEOUT)  # type: ignore[attr-defined]
    assert next(watch).status == status
    watch.cancel()


@pytest.mark.parametrize("service", ["nothing", "targets/9", "targets/", "/2"])
def test_an_unknown_name_is_not_found_and_watched_in_vain(ask: Asker, service: str) -> None:
    health = health_pb2_grpc.HealthStub(ask.channel)
    request = health_pb2.HealthCheckRequest(service=service)
    with pytest.raises(grpc.RpcError) as refusal:
        health.Check(request, timeout=TIMEOUT)  # type: ignore[attr-defined]
    assert refusal.value.code() is grpc.StatusCode.NOT_FOUND
    watch = health.Watch(request, timeout=TIMEOUT)  # type: ignore[attr-defined]
    assert next(watch).status == SERVICE_UNKNOWN
    watch.cancel()


@pytest.mark.parametrize(
    ("query", "answer"),
    [
        ("", (200, {"status": "SERVING", "failed": {"damaged": [1]}})),
        ("?model=targets", (200, {"status": "SERVING"})),
        ("?model=damaged", (503, {"status": "NOT_SERVING", "failed": {"damaged": [1]}})),
        ("?model=targets/1", (200, {"status": "SERVING"})),
        ("?model=nothing", (404, {"status": "SERVICE_UNKNOWN"})),
    ],
)
def test_the_same_over_http(server: ServerProcess, query: str, answer: tuple[int, dict[str, object]]) -> None:
    assert server.healthz(query) == answer


def test_reflection_tells_every_service_and_message(ask: Asker) -> None:
    database = ProtoReflectionDescriptorDatabase(ask.channel)
    assert set(database.get_services()) == {
        "dropserve.v1.PredictionService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
        "inference.GRPCInferenceService",
    }
    for service, stubs, message in (
        ("dropserve.v1.PredictionService", prediction_pb2, "PredictRequest"),
        ("grpc.health.v1.Health", health_pb2, "HealthCheckRequest"),
        ("inference.GRPCInferenceService", service_pb2, "ModelInferRequest"),
    ):
        described = database.FindFileContainingSymbol(service)
        assert described.name == stubs.DESCRIPTOR.name
        assert message in {message.name for message in described.message_type}
        for dependency in described.dependency:
            assert database.FindFileByName(dependency).name == dependency


def healthcheck(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dropserve_server.healthcheck", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=TIMEOUT, env=environment(**variables), check=False
    )


def test_the_containers_health_check(server: ServerProcess) -> None:
    port = str(server.grpc_port)
    good = healthcheck("--port", port)
    assert (good.returncode, good.stdout, good.stderr) == (0, "SERVING\n", "")
    assert healthcheck("--service", "targets", DROPSERVE_GRPC_PORT=port).returncode == 0
    bad = healthcheck("--port", port, "--service", "damaged")
    assert (bad.returncode, bad.stdout) == (1, "NOT_SERVING\n")
    unknown = healthcheck("--port", port, "--service", "nothing")
    assert unknown.returncode == 1
    assert "NOT_FOUND" in unknown.stderr


def test_the_health_check_of_a_server_that_is_not_there() -> None:
    gone = healthcheck("--port", "1", "--timeout", "5")
    assert gone.returncode == 1
    (line,) = gone.stderr.splitlines()
    assert "UNAVAILABLE" in line
