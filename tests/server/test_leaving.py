"""Callers who leave: what was held for them is freed, in gRPC's own memory as well."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import platform
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from dropserve.inference.service_pb2_grpc import GRPCInferenceServiceStub
from dropserve.v1.prediction_pb2_grpc import PredictionServiceStub
from dropserve_server.grpc.health import OVERALL
from support.open_inference import infer_request
from support.prediction_client import request
from support.service import ROW, SECONDS, Service, run

CALLS, AT_ONCE = 240, 4
OPERATION_BYTES = 95
"""Of one operation that failed, which gRPC never frees (grpc#43360). To set a status takes several."""

_NUMBERS = ["arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks"]


class _Memory(ctypes.Structure):
    """glibc's struct mallinfo2."""

    _fields_ = [(name, ctypes.c_size_t) for name in (*_NUMBERS, "keepcost")]


def allocated_bytes() -> int:
    """What the C library has lent to this process."""
    gc.collect()
    mallinfo = ctypes.CDLL(None).mallinfo2
    mallinfo.restype = _Memory
    memory = mallinfo()
    return int(memory.uordblks + memory.hblkhd)


class Requests:
    """One request, and no end before the caller has left."""

    def __init__(self, message: Any) -> None:
        self._messages = [message]
        self.left = threading.Event()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._messages:
            return self._messages.pop()
        self.left.wait(SECONDS)
        raise StopIteration


def watch(channel: grpc.Channel) -> None:
    overall = health_pb2.HealthCheckRequest(service=OVERALL)
    call = health_pb2_grpc.HealthStub(channel).Watch(overall, timeout=SECONDS)  # type: ignore[attr-defined]
    next(call)
    call.cancel()


def predict(channel: grpc.Channel) -> None:
    call = PredictionServiceStub(channel).Predict.future(request("fake", ROW), timeout=SECONDS)
    time.sleep(0.004)  # until it is in the queue
    call.cancel()


def infer(channel: grpc.Channel) -> None:
    call = GRPCInferenceServiceStub(channel).ModelInfer.future(infer_request("fake", ROW), timeout=SECONDS)
    time.sleep(0.004)
    call.cancel()


def stream(channel: grpc.Channel) -> None:
    _leave(PredictionServiceStub(channel).PredictStream, Requests(request("fake", ROW)))


def infer_stream(channel: grpc.Channel) -> None:
    _leave(GRPCInferenceServiceStub(channel).ModelStreamInfer, Requests(infer_request("fake", ROW)))


def _leave(method: Callable[..., Any], requests: Requests) -> None:
    call = method(requests, timeout=SECONDS)
    next(call)
    call.cancel()
    requests.left.set()


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or not hasattr(ctypes.CDLL(None), "mallinfo2"),
    reason="only a newer glibc tells what it has lent",
)
@pytest.mark.parametrize(
    ("leave", "operations"),
    # A stream is being read from when it is left, and that operation fails.
    [(watch, 0), (predict, 0), (infer, 0), (stream, 1), (infer_stream, 1)],
)
def test_callers_who_leave_leave_nothing(
    leave: Callable[[grpc.Channel], None], operations: int, tmp_path: Path
) -> None:
    async def scenario(service: Service) -> None:
        model = service.model
        # Not the asyncio client, which frees nothing of a call that is cancelled.
        with grpc.insecure_channel(service.address) as channel:

            def some() -> None:
                for _ in range(CALLS // AT_ONCE):
                    leave(channel)

            async def after_more() -> int:
                if leave in (predict, infer):
                    model.gate.clear()
                await asyncio.gather(*(asyncio.to_thread(some) for _ in range(AT_ONCE)))
                model.gate.set()
                await service.calls.idle()
                await asyncio.sleep(0.2)  # until the last cancellation has arrived
                return allocated_bytes()

            await after_more()
            held = [await after_more() for _ in range(4)]
        lost = median(after - before for before, after in pairwise(held)) / CALLS
        assert lost < (operations + 0.5) * OPERATION_BYTES

    run(scenario, tmp_path)
