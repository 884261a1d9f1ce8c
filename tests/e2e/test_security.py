"""TLS, client certificates and tokens: who gets in, who does not, and what changes while the server runs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from dropserve.inference.service_pb2_grpc import GRPCInferenceServiceStub
from dropserve.v1 import administration_pb2, prediction_pb2
from dropserve.v1.administration_pb2_grpc import ModelServiceStub
from dropserve_client import (
    Client,
    DropserveError,
    TlsConfig,
    UnauthenticatedError,
    UnavailableError,
)
from support.certificates import Authority, Files
from support.example_repository import rows_for
from support.open_inference import infer_request
from support.prediction_client import Asker, request
from support.server_process import TIMEOUT, ServerProcess, environment, server_process

X = rows_for("targets", 2)
ONCE = [("grpc.enable_retries", 0)]
DROPSERVE = Path(sys.executable).with_name("dropserve")


def make_token(path: Path, name: str, role: str) -> str:
    """Make one as an operator does."""
    command = [str(DROPSERVE), "token", name, "--role", role, "--token-file", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=True)
    assert done.stderr == ""
    return done.stdout.strip()


@dataclass
class Secured:
    """A server behind mutual TLS and tokens."""

    server: ServerProcess
    servers: Authority
    clients: Authority
    token_file: Path
    predict: str
    admin: str
    client_files: Files

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.grpc_port}"

    def tls(self, **changes: object) -> TlsConfig:
        fields: dict[str, object] = {
            "root_certificates": self.servers.certificate,
            "client_key": self.client_files.key,
            "client_certificate": self.client_files.certificate,
            "server_name": "models.example.com",
        }
        return TlsConfig(**(fields | changes))  # type: ignore[arg-type]

    def client(self, token: str | None, tls: TlsConfig | None = None) -> Client:
        # Each with a connection of its own, which shows what a new one is met with.
        options = [*ONCE, ("grpc.use_local_subchannel_pool", 1)]
        return Client(self.address, tls=tls or self.tls(), token=token, channel_options=options)

    def channel(self, address: str | None = None) -> grpc.Channel:
        options = [("grpc.ssl_target_name_override", "models.example.com")]
        return grpc.secure_channel(address or self.address, self.tls().credentials(), options)


@pytest.fixture(scope="module")
def secured(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    servers, clients = (Authority(tmp_path_factory.mktemp(name)) for name in ("servers", "clients"))
    files, client_files = servers.issue("models.example.com"), clients.issue("client", file="client")
    token_file = tmp_path_factory.mktemp("tokens") / "tokens"
    tokens = make_token(token_file, "shop", "predict"), make_token(token_file, "robot", "admin")
    options = ["--tls-certificate", str(files.certificate), "--tls-key", str(files.key)]
    options += ["--tls-client-ca", str(clients.certificate), "--token-file", str(token_file)]
    options += ["--admin-port", "0"]
    with server_process(repository, *options, ready=False) as server:
        found = Secured(server, servers, clients, token_file, *tokens, client_files)
        server.wait_until_serving(found.channel())
        yield found


def test_who_shows_a_certificate_and_a_token_is_answered(secured: Secured) -> None:
    with secured.client(secured.predict) as client:
        assert client.predict("targets", X).mean.shape == (2, 2)
        assert client.predict("targets", X, passes=10).passes == 10
        assert client.list_models()
        assert client.is_ready("targets")
    with secured.channel() as channel:
        metadata = (("authorization", f"Bearer {secured.admin}"),)
        questions = iter([request("targets", X, request_id=str(number)) for number in range(3)])
        answers = Asker(channel).stub.PredictStream(questions, timeout=TIMEOUT, metadata=metadata)
        assert {answer.request_id for answer in answers} == {"0", "1", "2"}


def test_without_a_certificate_of_the_clients_authority_nobody_gets_in(secured: Secured) -> None:
    stranger = secured.servers.issue("client", file="stranger")  # of the wrong authority
    for wrong in (
        secured.tls(client_key=None, client_certificate=None),
        secured.tls(client_key=stranger.key, client_certificate=stranger.certificate),
        secured.tls(root_certificates=secured.clients.certificate),
        secured.tls(server_name="elsewhere.example.com"),
    ):
        with secured.client(secured.predict, wrong) as client, pytest.raises(UnavailableError):
            client.predict("targets", X)


def test_without_a_token_or_its_role_nobody_is_answered(secured: Secured) -> None:
    for token in (None, "x" * 43):
        with secured.client(token) as client:
            for ask in (lambda: client.predict("targets", X), client.list_models):
                with pytest.raises(UnauthenticatedError) as refusal:
                    ask()
                assert "\n" not in str(refusal.value)
            assert client.is_ready()  # orchestrators and balancers have no token
    with secured.channel() as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/somebody.Else/Method")
        for token, code in ((secured.predict, "PERMISSION_DENIED"), (secured.admin, "UNIMPLEMENTED")):
            with pytest.raises(grpc.RpcError) as error:
                call(b"", timeout=TIMEOUT, metadata=(("authorization", f"Bearer {token}"),))
            assert error.value.code().name == code
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=TIMEOUT)  # type: ignore[attr-defined]
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        watch.cancel()
        stream = Asker(channel).stub.PredictStream(iter([request("targets", X)]), timeout=TIMEOUT)
        with pytest.raises(grpc.RpcError) as error:
            next(stream)
        assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert secured.server.scrape()['dropserve_rejected_total{model="unknown",reason="unauthenticated"}'] >= 5


def test_the_open_inference_protocol_and_the_admin_port_ask_for_the_same(secured: Secured) -> None:
    def status(call: Any, question: object, token: str | None) -> str:
        metadata = (("authorization", f"Bearer {token}"),) if token else ()
        try:
            call(question, timeout=TIMEOUT, metadata=metadata)
        except grpc.RpcError as error:
            return str(error.code().name)
        return "OK"

    tokens = (None, secured.predict, secured.admin)
    with secured.channel() as channel:
        infer = GRPCInferenceServiceStub(channel).ModelInfer
        told = [status(infer, infer_request("targets", X), token) for token in tokens]
        assert told == ["UNAUTHENTICATED", "OK", "OK"]
    port = secured.server.wait_for("listening")["admin_port"]
    with secured.channel(f"127.0.0.1:{port}") as channel:
        versions = ModelServiceStub(channel).ListVersions
        told = [status(versions, administration_pb2.ListVersionsRequest(), token) for token in tokens]
        assert told == ["UNAUTHENTICATED", "PERMISSION_DENIED", "OK"]
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        versions = ModelServiceStub(channel).ListVersions
        assert status(versions, administration_pb2.ListVersionsRequest(), secured.admin) == "UNAVAILABLE"


def test_the_command_line_and_the_health_check_get_in(secured: Secured, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(secured.predict + "\n")
    certificates = [
        "--tls-cert",
        str(secured.client_files.certificate),
        "--tls-key",
        str(secured.client_files.key),
    ]
    command = [
        str(DROPSERVE),
        "models",
        "--server",
        secured.address,
        "--token-file",
        str(token),
        *certificates,
    ]
    command += ["--tls-ca", str(secured.servers.certificate), "--tls-server-name", "models.example.com"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=TIMEOUT, env=environment(), check=False
    )
    assert (done.returncode, done.stderr.count("\n")) == (0, 1), done.stderr  # one version there is damaged
    assert "targets" in done.stdout

    # The health check is told what the server is told, by the same variables.
    served = secured.servers.folder / "server.pem"
    variables = {
        "DROPSERVE_GRPC_PORT": str(secured.server.grpc_port),
        "DROPSERVE_TLS_CERTIFICATE": str(served),
        "DROPSERVE_TLS_KEY": str(served.with_suffix(".key")),
        "DROPSERVE_TLS_CLIENT_CA": str(secured.clients.certificate),
    }
    with_own = variables | {
        "DROPSERVE_HEALTHCHECK_CERTIFICATE": str(secured.client_files.certificate),
        "DROPSERVE_HEALTHCHECK_KEY": str(secured.client_files.key),
    }
    plain = {"DROPSERVE_GRPC_PORT": str(secured.server.grpc_port)}
    distrusted = with_own | {"DROPSERVE_TLS_CERTIFICATE": str(secured.clients.certificate)}
    told = {}
    for name, given in (
        ("own", with_own),
        ("servers", variables),
        ("plain", plain),
        ("distrusted", distrusted),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "dropserve_server.healthcheck"],
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            env=environment(**given),
            check=False,
        )
        told[name] = (done.returncode, done.stdout)
        assert len(done.stderr.splitlines()) == done.returncode, done.stderr
    # In this test the servers' authority is not one of clients, so the server's certificate gets nobody in.
    assert told == {"own": (0, "SERVING\n"), "servers": (1, ""), "plain": (1, ""), "distrusted": (1, "")}


def certificate_shown(secured: Secured) -> bool:
    """Whether a new connection is met with a certificate that is for "rotated.example.com"."""
    with secured.client(secured.admin, secured.tls(server_name="rotated.example.com")) as client:
        try:
            client.list_models()
        except UnavailableError:
            return False
    return True


def test_certificates_and_tokens_are_exchanged_while_the_server_runs(secured: Secured) -> None:
    server, folder = secured.server, secured.servers.folder
    files = Files(folder / "server.pem", folder / "server.key")
    old = files.certificate.read_bytes(), files.key.read_bytes()
    with secured.client(secured.predict) as before:
        before.predict("targets", X)

        new = secured.servers.issue("rotated.example.com", file="new")
        files.certificate.write_bytes(new.certificate.read_bytes()[:200])
        told = server.wait_for("files not reloaded", what="certificates")
        assert "no certificate and its key in PEM form" in told["reason"]
        assert not certificate_shown(secured)
        files.certificate.write_bytes(new.certificate.read_bytes())
        mismatch = f"the key {files.key} is not that of the certificate {files.certificate}"
        server.wait_for("files not reloaded", what="certificates", reason=mismatch)
        assert not certificate_shown(secured)
        with secured.client(secured.predict) as client:
            client.predict("targets", X)
        files.key.write_bytes(new.key.read_bytes())
        server.wait_for("files reloaded", what="certificates")
        assert certificate_shown(secured)

        lines = secured.token_file.read_text()
        secured.token_file.write_text("shop predict\n")
        server.wait_for("files not reloaded", what="tokens")
        before.predict("targets", X)  # an old connection with an old token
        secured.token_file.write_text("".join(lines.splitlines(keepends=True)[1:]))
        fresh = make_token(secured.token_file, "new-shop", "predict")
        server.wait_for("files reloaded", what="tokens")
        with pytest.raises(UnauthenticatedError):
            before.predict("targets", X)

    rotated = secured.tls(server_name="rotated.example.com")
    with secured.client(fresh, rotated) as client:
        assert client.predict("targets", X).mean.shape == (2, 2)
    files.certificate.write_bytes(old[0])
    files.key.write_bytes(old[1])
    secured.token_file.write_text(lines)


def test_no_token_is_told_anywhere(secured: Secured) -> None:
    secrets = [secured.predict, secured.admin, "y" * 43, "z" * 43]
    told = []
    with secured.client("y" * 43) as client:
        with pytest.raises(DropserveError) as refusal:
            client.predict("targets", X)
        told.append(repr(refusal.value) + repr(refusal.value.__cause__))
    metadata = (("authorization", "z" * 43),)
    with secured.channel() as channel:
        stub = Asker(channel).stub
        with pytest.raises(grpc.RpcError) as error:
            stub.ListModels(prediction_pb2.ListModelsRequest(), timeout=TIMEOUT, metadata=metadata)
    told.append(str(error.value))
    secured.server.wait_for("call refused")
    told += [str(secured.server.log), str(secured.server.other_lines), str(secured.server.scrape())]
    assert secured.server.other_lines == []
    for secret in secrets:
        assert not any(secret in text for text in told), secret
