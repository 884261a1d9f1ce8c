"""Retries, load balancing and TLS: what the channel does by itself."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from dropserve_client import DropserveError, InputError, TlsConfig, UnavailableError, channel
from support.certificates import Authority
from support.fake_server import Failure, FakeService, HealthService, answer_mean, serving

X = np.ones((1, 3), np.float32)
ONCE = [("grpc.enable_retries", 0)]


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


RETRIED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


@pytest.mark.parametrize("code", RETRIED)
def test_what_a_server_that_leaves_says_is_retried(
    code: grpc.StatusCode, client: Any, service: FakeService
) -> None:
    service.failures.extend([Failure(code)] * 2)
    np.testing.assert_array_equal(client.predict("toy", X).mean, answer_mean(X))
    assert len(service.predict_calls) == 3


def test_retries_come_to_an_end(client: Any, service: FakeService) -> None:
    service.failures.extend([Failure(grpc.StatusCode.UNAVAILABLE, "draining")] * 9)
    with pytest.raises(UnavailableError, match="draining"):
        client.predict("toy", X)
    assert len(service.predict_calls) == 5


def test_large_requests_are_retried_too(
    connect: Callable[..., Any], address: str, service: FakeService
) -> None:
    service.failures.append(Failure(grpc.StatusCode.UNAVAILABLE))
    client = connect(address, request_rows=10**6)
    assert len(client.predict("toy", np.ones((300_000, 3))).mean) == 300_000
    assert [len(request.inputs.raw) for request in service.predict_calls] == [3_600_000] * 2


@pytest.mark.parametrize(
    "code",
    [code for code in grpc.StatusCode if code not in (grpc.StatusCode.OK, *RETRIED)],
)
def test_nothing_else_is_retried(code: grpc.StatusCode, client: Any, service: FakeService) -> None:
    service.failures.append(Failure(code))
    with pytest.raises(DropserveError):
        client.predict("toy", X)
    assert len(service.predict_calls) == 1


def test_a_server_that_is_not_there_is_named(connect: Callable[..., Any]) -> None:
    target = f"127.0.0.1:{free_port()}"
    with pytest.raises(UnavailableError, match=rf"no dropserve server answers at {target}: .*refused"):
        connect(target).predict("toy", X)


def test_a_server_that_comes_up_late_is_found(connect: Callable[..., Any]) -> None:
    target = f"127.0.0.1:{free_port()}"
    client = connect(target)
    with pytest.raises(UnavailableError):
        client.predict("toy", X)
    with serving(FakeService(), address=target):
        for _ in range(20):  # each tries for a second or so
            try:
                prediction = client.predict("toy", X)
                break
            except UnavailableError:
                continue
        np.testing.assert_array_equal(prediction.mean, answer_mean(X))


def test_round_robin_uses_every_server_that_is_ready(connect: Callable[..., Any]) -> None:
    services = [FakeService() for _ in range(3)]
    with ExitStack() as stack:
        addresses = [
            stack.enter_context(serving(service, health=HealthService())) for service in services[:2]
        ]
        draining = HealthService(HealthService.NOT_SERVING)
        addresses.append(stack.enter_context(serving(services[2], health=draining)))
        client = connect(f"ipv4:{','.join(addresses)}", load_balancing="round_robin")
        for _ in range(200):
            client.predict("toy", X)
            if all(len(service.predict_calls) > 2 for service in services[:2]):
                break
        assert all(service.predict_calls for service in services[:2])
        assert not services[2].predict_calls


def test_pick_first_stays_with_one(connect: Callable[..., Any]) -> None:
    services = [FakeService() for _ in range(2)]
    with serving(services[0]) as one, serving(services[1]) as two:
        client = connect(f"ipv4:{one},{two}")
        for _ in range(10):
            client.predict("toy", X)
    assert sorted(len(service.predict_calls) for service in services) == [0, 10]


def test_an_unknown_load_balancing_is_refused() -> None:
    with pytest.raises(InputError, match="round_robin"):
        channel.service_config("random")  # type: ignore[arg-type]


def test_channel_options_of_the_caller_win() -> None:
    chosen = dict(channel.options("pick_first", False, [("grpc.max_receive_message_length", 7)]))
    assert chosen["grpc.max_receive_message_length"] == 7
    assert chosen["grpc.max_send_message_length"] == -1
    config = json.loads(chosen["grpc.service_config"])
    assert config["methodConfig"][0]["retryPolicy"]["retryableStatusCodes"] == [code.name for code in RETRIED]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for the name dropserve.test, which is trusted by itself, and its key."""
    files = Authority(tmp_path_factory.mktemp("tls")).issue("dropserve.test")
    return files.certificate, files.key


def test_tls(connect: Callable[..., Any], certificate: tuple[Path, Path]) -> None:
    chain, key = certificate
    credentials = grpc.ssl_server_credentials([(key.read_bytes(), chain.read_bytes())])
    with serving(FakeService(), credentials=credentials) as address:
        for trusted in (chain, str(chain), chain.read_bytes()):
            client = connect(address, tls=TlsConfig(trusted, server_name="dropserve.test"))
            np.testing.assert_array_equal(client.predict("toy", X).mean, answer_mean(X))
        for wrong in (TlsConfig(chain), TlsConfig(server_name="dropserve.test"), True, False):
            with pytest.raises(UnavailableError, match="no dropserve server answers at"):
                connect(address, tls=wrong, channel_options=ONCE).predict("toy", X)


def test_mutual_tls(connect: Callable[..., Any], certificate: tuple[Path, Path]) -> None:
    chain, key = certificate
    pair = (key.read_bytes(), chain.read_bytes())
    credentials = grpc.ssl_server_credentials(
        [pair], root_certificates=chain.read_bytes(), require_client_auth=True
    )
    with serving(FakeService(), credentials=credentials) as address:
        known = TlsConfig(chain, client_key=key, client_certificate=chain, server_name="dropserve.test")
        assert connect(address, tls=known).predict("toy", X).passes == 0
        anonymous = replace(known, client_key=None, client_certificate=None)
        client = connect(address, tls=anonymous, channel_options=ONCE)
        with pytest.raises(UnavailableError):
            client.predict("toy", X)


def test_certificates_that_cant_be_used_are_refused(connect: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"can't read the root certificates .*absent\.pem: No such file"):
        connect("localhost:1", tls=TlsConfig(tmp_path / "absent.pem"))
    with pytest.raises(InputError, match="root certificates must be in PEM format"):
        connect("localhost:1", tls=TlsConfig(b"certificate"))
    with pytest.raises(InputError, match="go together"):
        connect("localhost:1", tls=TlsConfig(client_key=b"key"))


def test_a_token_goes_with_every_call(
    connect: Callable[..., Any], service: FakeService, address: str
) -> None:
    client = connect(address, token="s3cret-_.~+/=", insecure_token=True)
    client.predict("toy", X)
    client.list_models()
    client.get_model("toy")
    assert service.authorizations == ["Bearer s3cret-_.~+/="] * 3
    connect(address).list_models()
    assert service.authorizations[3:] == [None]


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("token", ["", "two words", "line\nbreak", "é", "x\0", b"bytes", 7])
def test_what_is_no_token_is_refused_and_not_told(connect: Callable[..., Any], token: Any, tls: bool) -> None:
    with pytest.raises(InputError, match="the token must be text of letters") as refusal:
        connect("localhost:1", token=token, tls=tls, insecure_token=True)
    assert not token or str(token) not in str(refusal.value)


def test_a_token_is_not_sent_in_plain_text_unless_told_to(connect: Callable[..., Any]) -> None:
    with pytest.raises(InputError, match=r"would travel in plain text: encrypt \(tls\)") as refusal:
        connect("localhost:1", token="s3cret")
    assert "s3cret" not in str(refusal.value)
    connect("localhost:1", token="s3cret", tls=True)
