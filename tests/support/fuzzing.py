"""Mutated requests against a real server: it must answer each, and stay what it was.

In the tests, a few thousand (`tests/e2e/test_fuzzing.py`). At length: ``python -m support.fuzzing``, see
``make fuzz``. A new service is fuzzed with a line in `TARGETS`.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from dropserve.inference import service_pb2
from dropserve.v1 import administration_pb2, prediction_pb2
from dropserve.v1.prediction_pb2 import MonteCarlo, PredictRequest
from dropserve.v1.tensor_pb2 import Tensor
from support import example_repository, fuzzed_repository
from support.mutation import mutated
from support.open_inference import infer_request
from support.prediction_client import request
from support.server_process import ServerProcess, server_process

TIMEOUT = 60.0
IN_FLIGHT = 16
STREAMED = 4  # messages of one stream
GROWTH = 1.1

# So low that no mutation is a long computation, and memory is just enough for a good one.
LIMITS = {"max-passes": 200, "max-rows": 200, "max-memory-bytes": 2**26, "max-message-bytes": 2**20}
OPTIONS = ["--admin-port", "0"]
OPTIONS += [text for name, value in LIMITS.items() for text in (f"--{name}", str(value))]

# The caller's doing, or a limit of this server. Never UNKNOWN, INTERNAL, UNAVAILABLE or DEADLINE_EXCEEDED.
EXPECTED = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}


@dataclass(frozen=True)
class Target:
    """A method, and good requests for it.

    Attributes
    ----------
    answer : type of message, optional
        Of a stream whose answers have a field `error` of their own: what they are.
    admin : bool
        Whether it is one of the admin port.
    watched : bool
        Whether its answers have no end: one is enough.
    """

    method: str
    seeds: Sequence[Message]
    streamed: bool = False
    answer: type[Message] | None = None
    admin: bool = False
    watched: bool = False

    def address(self, server: ServerProcess) -> str:
        """The address of the port that it is one of."""
        return f"127.0.0.1:{server.wait_for('listening')['admin_port']}" if self.admin else server.address


def _predict_requests() -> list[PredictRequest]:
    def rows(name: str, count: int = 3) -> Any:
        return example_repository.rows_for(name, count)

    every = MonteCarlo(passes=20, seed=7, quantiles=[0.1, 0.9], return_samples=True, mean_tolerance=0.1)
    return [
        request("targets", rows("targets"), request_id="a"),
        request("targets", Tensor(shape=[1, 4], values=[1, 2, 3, 4]), version="1"),
        request("targets", rows("targets"), every, version="2"),
        request("classes", rows("classes"), MonteCarlo(masks=prediction_pb2.MASKS_INDEPENDENT)),
        request("wave", rows("targets"), MonteCarlo(passes=2)),
        request("plain", rows("plain", 1)),
        request("calibrated", rows("targets"), interval=0.5),
        request("calibrated", rows("targets"), MonteCarlo(passes=20, seed=7), interval=0.5),
        request("mixed", fuzzed_repository.mixed_rows(4)),
        request("mixed", fuzzed_repository.mixed_rows(4), MonteCarlo(passes=20)),
    ]


def _infer_requests() -> list[Message]:
    rows = example_repository.rows_for("targets", 3)
    every = {"passes": 20, "seed": 7, "quantiles": "0.1,0.9", "return_samples": True, "mean_tolerance": 0.1}
    return [
        infer_request("targets", rows, id="a"),
        infer_request("targets", rows, {"passes": 2}, model_version="2"),
        infer_request("targets", rows, every, raw=False),
        infer_request("classes", example_repository.rows_for("classes", 3), datatype="FP64", raw=False),
        infer_request("plain", example_repository.rows_for("plain", 1), datatype="FP16"),
        infer_request("calibrated", rows, {"interval": 0.5}),
        infer_request("calibrated", rows, {"passes": 20, "interval": 0.5}, raw=False),
        infer_request("mixed", fuzzed_repository.mixed_rows(4), {"passes": 20}),
        infer_request("mixed", fuzzed_repository.mixed_rows(4), datatype="FP64"),
    ]


_PREDICTION = "/dropserve.v1.PredictionService"
_OPEN_INFERENCE = "/inference.GRPCInferenceService"
_MODELS = "/dropserve.v1.ModelService"
TARGETS = {
    "predict": Target(f"{_PREDICTION}/Predict", _predict_requests()),
    "stream": Target(
        f"{_PREDICTION}/PredictStream", _predict_requests(), True, answer=prediction_pb2.PredictResponse
    ),
    "get-model": Target(
        f"{_PREDICTION}/GetModel", [prediction_pb2.GetModelRequest(name="targets", version="1")]
    ),
    "list-models": Target(f"{_PREDICTION}/ListModels", [prediction_pb2.ListModelsRequest()]),
    "infer": Target(f"{_OPEN_INFERENCE}/ModelInfer", _infer_requests()),
    # Its answers name no status; bugs are in the log.
    "infer-stream": Target(f"{_OPEN_INFERENCE}/ModelStreamInfer", _infer_requests(), True),
    "server-live": Target(f"{_OPEN_INFERENCE}/ServerLive", [service_pb2.ServerLiveRequest()]),
    "server-ready": Target(f"{_OPEN_INFERENCE}/ServerReady", [service_pb2.ServerReadyRequest()]),
    "server-metadata": Target(f"{_OPEN_INFERENCE}/ServerMetadata", [service_pb2.ServerMetadataRequest()]),
    "model-ready": Target(f"{_OPEN_INFERENCE}/ModelReady", [service_pb2.ModelReadyRequest(name="targets")]),
    "model-metadata": Target(
        f"{_OPEN_INFERENCE}/ModelMetadata", [service_pb2.ModelMetadataRequest(name="targets", version="1")]
    ),
    "model-config": Target(
        f"{_OPEN_INFERENCE}/ModelConfig", [service_pb2.ModelConfigRequest(name="targets", version="1")]
    ),
    "model-statistics": Target(
        f"{_OPEN_INFERENCE}/ModelStatistics", [service_pb2.ModelStatisticsRequest(name="targets")]
    ),
    "repository-index": Target(
        f"{_OPEN_INFERENCE}/RepositoryIndex", [service_pb2.RepositoryIndexRequest(ready=True)]
    ),
    "health": Target("/grpc.health.v1.Health/Check", [health_pb2.HealthCheckRequest(service="targets")]),
    "health-watch": Target(
        "/grpc.health.v1.Health/Watch", [health_pb2.HealthCheckRequest(service="targets")], watched=True
    ),
    "reflection": Target(
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        [
            reflection_pb2.ServerReflectionRequest(file_containing_symbol="dropserve.v1.PredictionService"),
            reflection_pb2.ServerReflectionRequest(list_services=""),
        ],
        True,
    ),
    "list-versions": Target(
        f"{_MODELS}/ListVersions", [administration_pb2.ListVersionsRequest()], admin=True
    ),
    # Of the smallest model: every order that can be decoded is followed.
    "load-model": Target(
        f"{_MODELS}/LoadModel", [administration_pb2.LoadModelRequest(name="plain", version="1")], admin=True
    ),
    "unload-model": Target(
        f"{_MODELS}/UnloadModel",
        [administration_pb2.UnloadModelRequest(name="plain", version="1")],
        admin=True,
    ),
    "reload-repository": Target(
        f"{_MODELS}/ReloadRepository", [administration_pb2.ReloadRepositoryRequest()], admin=True
    ),
}


@dataclass
class Findings:
    """What came of it.

    Attributes
    ----------
    statuses : Counter
        How often each status was answered.
    wrong : list of str
        What should not have been answered, with the request's bytes.
    """

    statuses: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def note(self, code: grpc.StatusCode, details: str, sent: object) -> None:
        """Count an answer."""
        self.statuses[code.name] += 1
        if code not in EXPECTED or "\n" in details:
            self.wrong.append(f"{code.name}: {details!r} to {sent!r}")


async def fuzz(address: str, target: Target, seed: int, requests: int) -> Findings:
    """Send so many mutated requests to a server, several at a time."""
    findings = Findings()
    messages = _messages(target, seed, requests)
    async with grpc.aio.insecure_channel(address) as channel:
        # Where a stream ends while it is written to, the asyncio client forgets its status (grpc#36066).
        with grpc.insecure_channel(address) as streaming:
            one: Any = channel.unary_unary(target.method)
            watch: Any = channel.unary_stream(target.method)
            stream: Any = streaming.stream_stream(target.method)

            async def sender() -> None:
                for batch in messages:
                    if target.streamed:
                        await asyncio.to_thread(_send_stream, stream, target, batch, findings)
                    else:
                        await _send_one(watch if target.watched else one, batch[0], findings)

            async with asyncio.TaskGroup() as group:
                for _ in range(IN_FLIGHT):
                    group.create_task(sender())
    return findings


def _messages(target: Target, seed: int, requests: int) -> Iterator[list[bytes]]:
    random = Random(f"{target.method} {seed}")
    at_once = STREAMED if target.streamed else 1
    for start in range(0, requests, at_once):
        yield [mutated(target.seeds, random) for _ in range(min(at_once, requests - start))]


async def _send_one(call: Any, message: bytes, findings: Findings) -> None:
    try:
        under_way = call(message, timeout=TIMEOUT)
        if isinstance(under_way, grpc.aio.UnaryStreamCall):
            await anext(aiter(under_way))
            under_way.cancel()
        else:
            await under_way
    except grpc.aio.AioRpcError as error:
        findings.note(error.code(), error.details() or "", message)
    else:
        findings.note(grpc.StatusCode.OK, "", message)


def _send_stream(call: Any, target: Target, batch: list[bytes], findings: Findings) -> None:
    """A message that can't be decoded ends a stream, and what came behind it is not answered."""
    codes = {code.value[0]: code for code in grpc.StatusCode}
    try:
        for answer in call(iter(batch), timeout=TIMEOUT):
            error: Any = target.answer.FromString(answer).error if target.answer else None  # type: ignore[attr-defined]
            code = codes[error.code] if error is not None else grpc.StatusCode.OK
            findings.note(code, error.message if error is not None else "", batch)
    except grpc.RpcError as error:
        findings.note(error.code(), error.details() or "", batch)


def wrong_with(server: ServerProcess) -> list[str]:
    """What the server's log and metrics say that they should not."""
    found = [str(line) for line in server.log if line["level"] == "error" and "trace" in line]
    found += server.other_lines
    if server.process.poll() is not None:
        return [*found, f"it ended with status {server.process.returncode}"]
    inflight = server.scrape()["dropserve_inflight_requests"]
    return [*found, f"{inflight} requests still in flight"] if inflight else found


def main() -> int:
    """Fuzz every target at length, and tell of it."""
    parser = argparse.ArgumentParser(prog="python -m support.fuzzing", description=main.__doc__)
    parser.add_argument("--target", choices=[*TARGETS], action="append", help="default: all of them")
    parser.add_argument("--requests", type=int, default=100_000, help="of each (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        repository = fuzzed_repository.fill(Path(temporary))
        return max([_tell(repository, name, args.seed, args.requests) for name in args.target or TARGETS])


def _tell(repository: Path, name: str, seed: int, requests: int) -> int:
    target, started = TARGETS[name], time.monotonic()
    with server_process(repository, *OPTIONS) as server:
        asyncio.run(
            fuzz(target.address(server), target, -1, requests // 10)
        )  # until what grows once has grown
        settled = server.resident_bytes()
        findings = asyncio.run(fuzz(target.address(server), target, seed, requests))
        growth = server.resident_bytes() / settled
        wrong = findings.wrong + wrong_with(server)
    if growth > GROWTH:
        wrong.append(f"memory grew {growth:.2f} times")
    seconds, answers = time.monotonic() - started, dict(findings.statuses.most_common())
    print(f"{name}: {requests:,} requests in {seconds:.0f} s, memory x{growth:.3f}, {answers}", flush=True)
    for line in wrong[:20]:
        print(f"  {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
