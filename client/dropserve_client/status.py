"""From the status of a failed call to an error of ours: the one table at the edge."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

import grpc

from dropserve_client.errors import BY_CODE, DropserveError, IntervalUnavailable, ServerError
from dropserve_client.foreign import retry_seconds, violated_field

_ADDRESS: Final = re.compile(r"^[A-Z]+: (ipv[46]|unix):\S+: ")
"""What gRPC's causes begin with: "UNKNOWN: ipv4:127.0.0.1:8001: "."""


def call_error(
    code: grpc.StatusCode,
    details: str | None,
    trailing_metadata: Iterable[Any] | None,
    target: str,
    timeout_message: str,
) -> DropserveError:
    """The error for a call to `target` that ended with `code`.

    `trailing_metadata` are pairs of key and value, by whatever name gRPC calls them.
    """
    said = " ".join((details or "").split())
    match code:
        case grpc.StatusCode.UNAVAILABLE:
            message = f"no dropserve server answers at {target}: {_cause(said)}"
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            message = timeout_message
        case grpc.StatusCode.UNIMPLEMENTED:
            message = f"the server at {target} is no dropserve server, or an older one: {said}"
        case grpc.StatusCode.CANCELLED:
            message = f"the call to {target} was cancelled: {said}"
        case _ if code in BY_CODE:
            message = said or code.name
        case _:
            message = f"the server at {target} failed ({code.name}): {said}"
    kind, field = BY_CODE.get(code, ServerError), violated_field(trailing_metadata)
    if code is grpc.StatusCode.FAILED_PRECONDITION and field == "interval":
        kind = IntervalUnavailable
    return kind(message, code=code, field=field, retry_seconds=retry_seconds(trailing_metadata))


def _cause(details: str) -> str:
    """The end of gRPC's story: "failed to connect to all addresses; last error: ...: Connection refused"."""
    for lead in ("Failed to connect to remote host: ", "last error: "):
        details = details.rpartition(lead)[2]
    cause = _ADDRESS.sub("", details)
    return f"{cause}; is this its gRPC port?" if "http" in cause.lower() else cause
