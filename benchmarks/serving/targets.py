"""What a server is asked: one row, as the SDK would send it."""

from __future__ import annotations

from pathlib import Path

import grpc
import numpy as np

from benchmarks.networks import Network
from benchmarks.serving.load import PREDICT, Target
from dropserve_client import wire


def predict_target(address: str, network: Network, folder: Path, passes: int | None) -> Target:
    """A 1-row request to the network at the server there, warmed up; its message lies in `folder`."""
    row = np.random.default_rng(0).normal(size=(1, network.sizes[0])).astype(np.float32)
    request = wire.predict_request(wire.question(network.name, passes=passes), row)
    message = folder / f"{network.name}-{passes or 0}.message"
    message.write_bytes(request.SerializeToString())
    with grpc.insecure_channel(address) as channel:
        predict: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(PREDICT)
        answer = predict(message.read_bytes(), timeout=60)
    return Target(address, message, len(answer))
