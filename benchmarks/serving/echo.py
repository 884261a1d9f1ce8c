"""The reference: a raw grpc.aio server on uvloop that answers every call with the same bytes.

It neither parses requests nor builds answers: what Python's gRPC costs before a server does anything.
``python -m benchmarks.serving.echo --answer-bytes N`` prints its port, and serves until it is terminated.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from typing import Any

import grpc
import grpc.aio
import uvloop


class Echo(grpc.GenericRpcHandler):
    """Every unary method there is."""

    def __init__(self, answer: bytes) -> None:
        async def handle(_request: bytes, _context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
            return answer

        self._handler: grpc.RpcMethodHandler[Any, Any] = grpc.unary_unary_rpc_method_handler(handle)

    def service(self, _details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        """The handler, whatever is called."""
        return self._handler


async def serve(answer: bytes, port: int) -> None:
    """Serve on a loopback port, which other processes may serve too; 0: a free one."""
    server = grpc.aio.server(handlers=[Echo(answer)])
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


def main(argv: Sequence[str] | None = None) -> None:
    """Serve until terminated."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answer-bytes", type=int, required=True)
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args(argv)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(bytes(options.answer_bytes), options.port))


if __name__ == "__main__":
    main()
