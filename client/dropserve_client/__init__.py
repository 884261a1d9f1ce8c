"""The client of a dropserve server: predictions with error bars, over gRPC.

>>> from dropserve_client import Client
>>> client = Client("localhost:8001")
>>> client.predict("breast_cancer", X).mean                                # one deterministic pass
>>> client.predict("breast_cancer", X, passes=100, seed=7).std             # Monte Carlo dropout
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dropserve_client.administrator import Administrator
    from dropserve_client.aio import AsyncClient
    from dropserve_client.channel import TlsConfig
    from dropserve_client.client import Client
    from dropserve_client.errors import (
        CallCancelledError,
        ClosedError,
        DeadlineExceededError,
        DropserveError,
        InputError,
        IntervalUnavailable,
        LoadFailedError,
        MonteCarloUnavailable,
        NotFoundError,
        PermissionDeniedError,
        ProtocolError,
        ResourceExhaustedError,
        ServerError,
        UnauthenticatedError,
        UnavailableError,
    )
    from dropserve_client.types import Column, ModelInfo, Prediction, Timings, VersionStatus

__all__ = [
    "Administrator",
    "AsyncClient",
    "CallCancelledError",
    "Client",
    "ClosedError",
    "Column",
    "DeadlineExceededError",
    "DropserveError",
    "InputError",
    "IntervalUnavailable",
    "LoadFailedError",
    "ModelInfo",
    "MonteCarloUnavailable",
    "NotFoundError",
    "PermissionDeniedError",
    "Prediction",
    "ProtocolError",
    "ResourceExhaustedError",
    "ServerError",
    "Timings",
    "TlsConfig",
    "UnauthenticatedError",
    "UnavailableError",
    "VersionStatus",
]

_HOMES = {
    "Administrator": "administrator",
    "AsyncClient": "aio",
    "Client": "client",
    "Column": "types",
    "ModelInfo": "types",
    "Prediction": "types",
    "Timings": "types",
    "TlsConfig": "channel",
    "VersionStatus": "types",
}


def __getattr__(name: str) -> Any:
    # On first use, because the command line lives in this package too, and most of it needs no gRPC.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
