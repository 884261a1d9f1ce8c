"""What a server is asked, as the SDK would ask it."""

from __future__ import annotations

from pathlib import Path

import grpc
import numpy as np

from benchmarks.networks import Network
from benchmarks.serving.load import PREDICT, Target
from dropserve_client import wire


def predict_target(address: str, network: Network, folder: Path, passes: int | None, rows: int = 1) -> Target:
    """A request to the network at the server there, warmed up; its message lies in `folder`."""
    features = np.random.default_rng(0).normal(size=(rows, network.sizes[0])).astype(np.float32)
    request = wire.predict_request(wire.question(network.name, passes=passes), features)
    message = folder / f"{network.name}-{rows}-{passes or 0}.message"
    message.write_bytes(request.SerializeToString())
    with grpc.insecure_channel(address) as channel:
        predict: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(PREDICT)
        answer = predict(message.read_bytes(), timeout=60)
    return Target(address, message, len(answer))
