"""``python -m dropserve_server.healthcheck``: exit status 0 where the server says SERVING, else 1.

For a container's HEALTHCHECK; needs nothing but gRPC.
"""

from __future__ import annotations

import argparse
import os
import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

SERVING, NOT_SERVING = 0, 1


def main(arguments: list[str] | None = None) -> int:
    """Ask a server's grpc.health; print its answer, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m dropserve_server.healthcheck", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=int(os.environ.get("DROPSERVE_GRPC_PORT") or 8001))
    parser.add_argument("--service", default="", help="a model's name; empty: the whole server")
    parser.add_argument("--timeout", type=float, default=3.0, metavar="SECONDS")
    args = parser.parse_args(arguments)
    try:
        with grpc.insecure_channel(f"{args.host}:{args.port}") as channel:
            request = health_pb2.HealthCheckRequest(service=args.service)
            stub = health_pb2_grpc.HealthStub(channel)
            status = stub.Check(request, timeout=args.timeout).status  # type: ignore[attr-defined]  # stub lacks it
    except grpc.RpcError as error:
        print(f"{args.host}:{args.port}: {error.code().name}: {error.details()}", file=sys.stderr)
        return NOT_SERVING
    print(health_pb2.HealthCheckResponse.ServingStatus.Name(status))
    return SERVING if status == health_pb2.HealthCheckResponse.SERVING else NOT_SERVING


if __name__ == "__main__":
    sys.exit(main())
