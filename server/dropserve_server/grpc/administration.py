"""dropserve.v1.ModelService: convert, have it administered, convert."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeAlias, TypeVar

import grpc.aio

from dropserve.v1 import administration_pb2 as pb2
from dropserve.v1 import administration_pb2_grpc, model_pb2
from dropserve_server.administration import Administers
from dropserve_server.grpc.status import code_of, fail
from dropserve_server.grpc.wire import write_status
from dropserve_server.logs import LOGGER
from dropserve_server.served import VersionStatus

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
Answer = TypeVar("Answer")

log = logging.getLogger(LOGGER)


class ModelServicer(administration_pb2_grpc.ModelServiceServicer):
    """Answers ModelService."""

    def __init__(self, administration: Administers) -> None:
        self._administration = administration
        self._under_way: set[asyncio.Future[list[VersionStatus]]] = set()

    async def ListVersions(
        self, request: pb2.ListVersionsRequest, context: Context
    ) -> pb2.ListVersionsResponse:
        """List every version in the repository."""
        return await self._answer(self._administration.list_versions(), pb2.ListVersionsResponse, context)

    async def LoadModel(self, request: pb2.LoadModelRequest, context: Context) -> pb2.LoadModelResponse:
        """Serve a version, or what a model's policy wants."""
        work = self._administration.load_model(request.name, request.version)
        return await self._answer(work, pb2.LoadModelResponse, context)

    async def UnloadModel(self, request: pb2.UnloadModelRequest, context: Context) -> pb2.UnloadModelResponse:
        """Serve a version, or a model, no longer."""
        work = self._administration.unload_model(request.name, request.version)
        return await self._answer(work, pb2.UnloadModelResponse, context)

    async def ReloadRepository(
        self, request: pb2.ReloadRepositoryRequest, context: Context
    ) -> pb2.ReloadRepositoryResponse:
        """Look through the repository now."""
        return await self._answer(self._administration.reload(), pb2.ReloadRepositoryResponse, context)

    async def _answer(
        self,
        work: Awaitable[list[VersionStatus]],
        answer: Callable[..., Answer],
        context: Context,
    ) -> Answer:
        # Orders are followed to their end: half an order would be an order that nobody gave.
        order = asyncio.ensure_future(work)
        self._under_way.add(order)
        order.add_done_callback(self._under_way.discard)
        try:
            return answer(versions=_written(await asyncio.shield(order)))
        except (Exception, asyncio.CancelledError) as error:  # becomes the call's status
            if code_of(error) is grpc.StatusCode.INTERNAL:
                log.exception("order failed")
            await fail(context, error)


def _written(statuses: Iterable[VersionStatus]) -> list[model_pb2.VersionStatus]:
    return [write_status(status, reason=status.reason) for status in statuses]
