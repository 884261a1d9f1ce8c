"""Which calls pass, which are refused, and what is told and written of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from dropserve_server.grpc.authentication import Authentication, role_for
from dropserve_server.grpc.request_log import RequestLog
from dropserve_server.metrics import Metrics
from dropserve_server.reloading import Reloaded
from dropserve_server.tokens import add_token, read_tokens

SECONDS = 20.0
PREDICT = "/dropserve.v1.PredictionService/Predict"
STREAM = "/dropserve.v1.PredictionService/PredictStream"
LOAD = "/dropserve.v1.ModelService/LoadModel"


class Front:
    """A server that answers any method, behind the tokens of a predictor and an administrator."""

    def __init__(self, folder: Path) -> None:
        path = folder / "tokens"
        self.predict, self.admin = add_token(path, "shop", "predict"), add_token(path, "robot", "admin")
        self.metrics = Metrics()
        self.tokens = Reloaded("tokens", [path], lambda: read_tokens(path))
        self.answered: list[str] = []

    async def call(self, method: str, *metadata: tuple[str, str], message: bytes = b"") -> bytes:
        call: Any = self.channel.unary_unary(method)
        return bytes(await call(message, timeout=SECONDS, metadata=metadata))

    async def refusal(self, method: str, *metadata: tuple[str, str], message: bytes = b"") -> tuple[str, str]:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await self.call(method, *metadata, message=message)
        return error.value.code().name, str(error.value.details())

    def run(self, scenario: Callable[[Front], Awaitable[None]]) -> None:
        async def life() -> None:
            server = grpc.aio.server(
                interceptors=[Authentication(self.tokens, self.metrics, RequestLog(0, 1000))],
                options=[("grpc.max_receive_message_length", -1)],
            )
            server.add_generic_rpc_handlers((_AnyMethod(self.answered),))
            port = server.add_insecure_port("127.0.0.1:0")
            await server.start()
            try:
                async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as self.channel:
                    await asyncio.wait_for(scenario(self), SECONDS)
            finally:
                await server.stop(None)

        asyncio.run(life())


class _AnyMethod(grpc.GenericRpcHandler):
    def __init__(self, answered: list[str]) -> None:
        self._answered = answered

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        method = handler_call_details.method

        async def one(_request: bytes, _context: object) -> bytes:
            self._answered.append(method)
            return b"answer"

        async def several(requests: AsyncIterator[bytes], _context: object) -> AsyncIterator[bytes]:
            self._answered.append(method)
            async for request in requests:
                yield request

        if method == STREAM:
            return grpc.stream_stream_rpc_method_handler(several)
        return grpc.unary_unary_rpc_method_handler(one)


def bearer(token: str) -> tuple[str, str]:
    return "authorization", f"Bearer {token}"


@pytest.fixture
def front(tmp_path: Path) -> Front:
    return Front(tmp_path)


@pytest.mark.parametrize(
    ("method", "role"),
    [
        (PREDICT, "predict"),
        (STREAM, "predict"),
        ("/dropserve.v1.PredictionService/GetModel", "predict"),
        ("/inference.GRPCInferenceService/ModelInfer", "predict"),
        ("/inference.GRPCInferenceService/RepositoryIndex", "predict"),
        ("/inference.GRPCInferenceService/RepositoryModelLoad", "admin"),
        ("/inference.GRPCInferenceService/RepositoryModelUnload", "admin"),
        ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", "predict"),
        ("/grpc.health.v1.Health/Check", None),
        ("/grpc.health.v1.Health/Watch", None),
        (LOAD, "admin"),
        # Whatever is forgotten in the table is closed.
        ("/dropserve.v2.PredictionService/Predict", "admin"),
        ("/grpc.health.v1.Health", None),
        ("/grpc.health.v1.Health/../../x", "admin"),
        ("", "admin"),
        ("nonsense", "admin"),
    ],
)
def test_what_each_method_takes(method: str, role: str | None) -> None:
    assert role_for(method) == role


def test_who_has_a_token_of_the_role_is_answered(front: Front) -> None:
    async def scenario(front: Front) -> None:
        assert await front.call(PREDICT, bearer(front.predict)) == b"answer"
        assert await front.call(PREDICT, bearer(front.admin)) == b"answer"
        assert await front.call(LOAD, bearer(front.admin)) == b"answer"
        assert await front.call(PREDICT, ("authorization", f"bearer  {front.predict}")) == b"answer"
        assert await front.call("/grpc.health.v1.Health/Check") == b"answer"
        stream: Any = front.channel.stream_stream(STREAM)
        call = stream(iter([b"1", b"2"]), timeout=SECONDS, metadata=(bearer(front.predict),))
        assert [answer async for answer in call] == [b"1", b"2"]

    front.run(scenario)
    assert len(front.answered) == 6


def test_who_has_none_is_refused_with_one_line(front: Front, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    wrong = [bearer("x" * 43), bearer(f"{front.predict}x"), bearer(front.predict[:-1])]
    malformed = [
        ("authorization", ""),
        ("authorization", "Bearer"),
        ("authorization", "Bearer "),
        ("authorization", f"Basic {front.predict}"),
        ("authorization", front.predict),
        ("token", front.predict),
    ]

    async def scenario(front: Front) -> None:
        needed = (
            "UNAUTHENTICATED",
            "a token is needed: send it as the metadata 'authorization: Bearer TOKEN'",
        )
        assert await front.refusal(PREDICT) == needed
        for metadata in malformed:
            assert await front.refusal(PREDICT, metadata) == needed, metadata
        for metadata in wrong:
            told = await front.refusal(PREDICT, metadata)
            assert told == ("UNAUTHENTICATED", "the token is not one of this server's")
        assert await front.refusal(LOAD, bearer(front.predict)) == (
            "PERMISSION_DENIED",
            "the token shop has the role predict; this takes admin",
        )
        # A second header does not help the first.
        told = await front.refusal(PREDICT, bearer("x"), bearer(front.predict))
        assert told[0] == "UNAUTHENTICATED"

    front.run(scenario)
    assert front.answered == []
    rejected = front.metrics.rejected
    assert rejected.labels("unknown", "unauthenticated")._value.get() == 11
    assert rejected.labels("unknown", "permission_denied")._value.get() == 1
    refused = [record for record in caplog.records if record.message == "call refused"]
    assert len(refused) == 12
    assert {vars(record)["method"] for record in refused} == {PREDICT, LOAD}
    written = "\n".join(f"{record.getMessage()} {vars(record)}" for record in caplog.records)
    for secret in (front.predict[:-1], front.admin, "x" * 43):
        assert secret not in written


def test_a_refusal_does_not_wait_for_what_the_caller_has_to_say(front: Front) -> None:
    async def scenario(front: Front) -> None:
        # A stream on which nothing is ever sent, nor its end.
        stream: Any = front.channel.stream_stream(STREAM)
        call = stream(timeout=SECONDS)
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await call.read()
        assert refusal.value.code() is grpc.StatusCode.UNAUTHENTICATED
        # A message larger than what flow control lets through before somebody reads it.
        assert (await front.refusal(PREDICT, message=bytes(2**24)))[0] == "UNAUTHENTICATED"

    front.run(scenario)


def test_a_token_taken_from_the_file_is_refused_from_then_on(front: Front, tmp_path: Path) -> None:
    path = tmp_path / "tokens"

    async def scenario(front: Front) -> None:
        assert await front.call(PREDICT, bearer(front.predict)) == b"answer"
        lines = path.read_text().splitlines()
        path.write_text("\n".join(line for line in lines if not line.startswith("shop ")))
        fresh = add_token(path, "new-shop", "predict")
        front.tokens.refresh()
        assert (await front.refusal(PREDICT, bearer(front.predict)))[0] == "UNAUTHENTICATED"
        assert await front.call(PREDICT, bearer(fresh)) == b"answer"
        path.write_text("half a li")
        front.tokens.refresh()
        assert await front.call(PREDICT, bearer(fresh)) == b"answer"

    front.run(scenario)
