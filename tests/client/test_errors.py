from __future__ import annotations

import inspect
import pickle
import re
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dropserve_client
from dropserve_client import errors, foreign
from dropserve_client.errors import BY_CODE, DropserveError, InputError, ServerError
from support.fake_server import Failure, FakeService, status_details

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, DropserveError)]
FAILING = [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]
X = np.ones((1, 3), np.float32)


def test_the_tree_is_as_it_is_drawn() -> None:
    drawn: dict[str, str] = {}
    parents: list[str] = []
    assert errors.__doc__ is not None
    for line in errors.__doc__.splitlines():
        match = re.match(r"    ((?:│   |    )*(?:[├└]── )?)([A-Z]\w+)  ", line)
        if match:
            depth = len(match[1]) // 4
            parents[depth:] = [match[2]]
            drawn[match[2]] = parents[depth - 1] if depth else ""
    real = {kind.__name__: kind.__mro__[1].__name__ for kind in KINDS}
    assert drawn == real | {"DropserveError": ""}


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_is_exported_documented_and_survives_pickling(kind: type[DropserveError]) -> None:
    assert getattr(dropserve_client, kind.__name__) is kind
    assert kind.__doc__
    error = kind("what was wrong", code=grpc.StatusCode.INTERNAL, field="inputs")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert (str(copy), copy.code, copy.field) == ("what was wrong", grpc.StatusCode.INTERNAL, "inputs")


@pytest.mark.parametrize("code", FAILING)
def test_every_status_becomes_an_error_of_ours(
    code: grpc.StatusCode, client: Any, service: FakeService
) -> None:
    service.failures.extend([Failure(code, "line one\nline two")] * 5)
    with pytest.raises(DropserveError) as caught:
        client.predict("toy", X)
    error = caught.value
    assert type(error) is BY_CODE.get(code, ServerError)
    assert error.code is code
    assert error.field == ""
    assert "\n" not in str(error)
    if code is not grpc.StatusCode.DEADLINE_EXCEEDED:
        assert "line one line two" in str(error)


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (errors.InputError, ValueError),
        (errors.DeadlineExceededError, TimeoutError),
        (errors.UnavailableError, ConnectionError),
    ],
)
def test_errors_are_caught_by_their_builtin_names_too(kind: type, builtin: type) -> None:
    assert issubclass(kind, builtin)


def test_the_field_that_is_wrong_is_told(client: Any, service: FakeService) -> None:
    details = status_details("inputs.shape", "passes")
    service.failures.append(Failure(grpc.StatusCode.INVALID_ARGUMENT, "3 columns, please", details))
    with pytest.raises(InputError, match=r"^3 columns, please$") as caught:
        client.predict("toy", X)
    assert caught.value.field == "inputs.shape"


def test_the_details_are_what_googles_own_package_writes() -> None:
    status_pb2 = pytest.importorskip("google.rpc.status_pb2")
    error_details_pb2 = pytest.importorskip("google.rpc.error_details_pb2")
    status = status_pb2.Status(code=3, message="message")
    violations = [error_details_pb2.BadRequest.FieldViolation(field="a", description="why")]
    status.details.add().Pack(error_details_pb2.RetryInfo())
    status.details.add().Pack(error_details_pb2.BadRequest(field_violations=violations))
    assert foreign.violated_field([(foreign.STATUS_DETAILS_KEY, status.SerializeToString())]) == "a"


def told_to_wait(seconds: int, nanos: int) -> bytes:
    """Details with a RetryInfo, by Google's own packages."""
    status_pb2 = pytest.importorskip("google.rpc.status_pb2")
    error_details_pb2 = pytest.importorskip("google.rpc.error_details_pb2")
    status = status_pb2.Status(code=8, message="message")
    status.details.add().Pack(error_details_pb2.BadRequest())
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.seconds, retry.retry_delay.nanos = seconds, nanos
    status.details.add().Pack(retry)
    return bytes(status.SerializeToString())


@pytest.mark.parametrize(("seconds", "nanos"), [(0, 0), (0, 50_000_000), (2, 0), (90, 1)])
def test_how_long_to_wait_is_read_from_the_details(seconds: int, nanos: int) -> None:
    metadata = [(foreign.STATUS_DETAILS_KEY, told_to_wait(seconds, nanos))]
    assert foreign.retry_seconds(metadata) == pytest.approx(seconds + nanos / 1e9)
    assert foreign.retry_seconds([]) is None
    assert foreign.retry_seconds([(foreign.STATUS_DETAILS_KEY, status_details("x"))]) is None


def test_health_messages_are_what_grpcs_own_package_writes() -> None:
    health_pb2 = pytest.importorskip("grpc_health.v1.health_pb2")
    for service in ("", "a model"):
        request = health_pb2.HealthCheckRequest(service=service)
        assert foreign.health_check_request(service) == request.SerializeToString()
    for name, status in health_pb2.HealthCheckResponse.ServingStatus.items():
        response = health_pb2.HealthCheckResponse(status=status)
        assert foreign.is_serving(response.SerializeToString()) is (name == "SERVING")


@given(st.binary(max_size=60) | st.integers(0, 80).map(lambda cut: status_details("inputs")[:cut]))
def test_damaged_details_name_no_field_and_do_no_harm(details: bytes) -> None:
    assert foreign.violated_field([(foreign.STATUS_DETAILS_KEY, details)]) in ("", "inputs", "input")
    assert foreign.retry_seconds([(foreign.STATUS_DETAILS_KEY, details)]) is None
    assert foreign.is_serving(details) in (True, False)


@pytest.mark.parametrize(
    "metadata", [None, [], [("other-bin", status_details("x"))], [(foreign.STATUS_DETAILS_KEY, "x")]]
)
def test_other_metadata_names_no_field(metadata: Any) -> None:
    assert foreign.violated_field(metadata) == ""


def test_an_unknown_model_is_not_found(client: Any) -> None:
    calls: list[Callable[[], Any]] = [
        lambda: client.predict("other", X),
        lambda: client.get_model("other"),
        lambda: client.get_model("toy", version=9),
    ]
    for call in calls:
        with pytest.raises(errors.NotFoundError, match="there is no model"):
            call()


def test_a_server_of_another_kind_is_told_apart(connect: Callable[..., Any]) -> None:
    from support.fake_server import serving

    with (
        serving(None) as address,
        pytest.raises(ServerError, match="is no dropserve server, or an older one"),
    ):
        connect(address).predict("toy", X)
