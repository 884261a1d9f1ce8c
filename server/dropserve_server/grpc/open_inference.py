"""inference.GRPCInferenceService, the Open Inference Protocol v2: convert, have it predicted, convert.

The specification is kserve/open-inference-protocol's; streams, configuration, statistics and the index are
as Triton has them, whose clients and tools call them too.
"""

from __future__ import annotations

import asyncio
from importlib.metadata import version
from typing import Any, TypeAlias

import grpc.aio

from dropserve.inference import service_pb2 as pb
from dropserve.inference import service_pb2_grpc
from dropserve_models.errors import InputError
from dropserve_server.errors import InvalidRequest, ModelNotFound, Unavailable
from dropserve_server.grpc import open_inference_models as models
from dropserve_server.grpc import open_inference_wire as wire
from dropserve_server.grpc.calls import Calls
from dropserve_server.grpc.health import OVERALL, HealthServicer
from dropserve_server.grpc.open_inference_parameters import (
    is_monte_carlo,
    read_interval,
    read_options,
    read_seconds,
)
from dropserve_server.grpc.status import fail, message_of, status_of
from dropserve_server.grpc.stream import Intake
from dropserve_server.grpc.wire import check_request_id
from dropserve_server.metrics import DETERMINISTIC, MONTE_CARLO
from dropserve_server.predictor import Predictor
from dropserve_server.repository import Repository
from dropserve_server.served import ServedModel
from dropserve_server.settings import Settings

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]

_EXTENSIONS = ("model_configuration", "parameters", "statistics")

# Reading or converting this many elements takes about a millisecond: beyond it, not on the event loop.
_MANY_VALUES = 32_768


class OpenInferenceServicer(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Answers GRPCInferenceService.

    A handler whose caller is still there never raises CancelledError; see `fail`.
    """

    def __init__(
        self,
        repository: Repository,
        predictor: Predictor,
        calls: Calls,
        health: HealthServicer,
        settings: Settings,
    ) -> None:
        self._repository = repository
        self._predictor = predictor
        self._calls = calls
        self._health = health
        self._settings = settings
        self._intake = Intake(settings.stream_concurrency)
        self._metadata = pb.ServerMetadataResponse(
            name="dropserve", version=version("dropserve"), extensions=_EXTENSIONS
        )

    async def ServerLive(self, request: pb.ServerLiveRequest, context: Context) -> pb.ServerLiveResponse:
        """Tell that the server answers."""
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, request: pb.ServerReadyRequest, context: Context) -> pb.ServerReadyResponse:
        """Tell whether requests should be sent."""
        return pb.ServerReadyResponse(ready=self._health.serving(OVERALL) or False)

    async def ModelReady(self, request: pb.ModelReadyRequest, context: Context) -> pb.ModelReadyResponse:
        """Tell whether a model answers requests."""
        ready = self._health.serving(request.name) or False
        try:
            self._repository.find(request.name, request.version)
        except (ModelNotFound, Unavailable):
            ready = False
        except Exception as error:  # noqa: BLE001  # becomes the call's status
            await context.abort_with_status(status_of(error))
        return pb.ModelReadyResponse(ready=ready)

    async def ServerMetadata(
        self, request: pb.ServerMetadataRequest, context: Context
    ) -> pb.ServerMetadataResponse:
        """Tell who the server is."""
        return self._metadata

    async def ModelMetadata(
        self, request: pb.ModelMetadataRequest, context: Context
    ) -> pb.ModelMetadataResponse:
        """Describe a model."""
        served = await self._find(request.name, request.version, context)
        return models.write_metadata(served, self._versions(served.name))

    async def ModelConfig(self, request: pb.ModelConfigRequest, context: Context) -> pb.ModelConfigResponse:
        """Describe a model as Triton's configuration does."""
        served = await self._find(request.name, request.version, context)
        config = models.write_config(
            served,
            self._versions(served.name),
            max_rows=self._settings.max_rows,
            workers=self._settings.deterministic_workers,
        )
        return pb.ModelConfigResponse(config=config)

    async def ModelStatistics(
        self, request: pb.ModelStatisticsRequest, context: Context
    ) -> pb.ModelStatisticsResponse:
        """Tell what models have answered."""
        if request.name:
            await self._find(request.name, request.version, context)
        statistics = [
            models.write_statistics(served)
            for served, _ in self._repository
            if request.name in ("", served.name) and request.version in ("", served.version)
        ]
        return pb.ModelStatisticsResponse(model_stats=statistics)

    async def RepositoryIndex(
        self, request: pb.RepositoryIndexRequest, context: Context
    ) -> pb.RepositoryIndexResponse:
        """List the models of the repository."""
        if request.repository_name:
            error = InvalidRequest("repository_name", "there is one repository here, without a name")
            await context.abort_with_status(status_of(error))
        return models.write_index(self._repository, self._health.serving, ready=request.ready)

    async def ModelInfer(self, request: pb.ModelInferRequest, context: Context) -> pb.ModelInferResponse:
        """Answer one request."""
        try:
            return await self._answer(request, context.time_remaining())
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # becomes the call's status
            await fail(context, error)

    async def ModelStreamInfer(self, _requests: object, context: Context) -> None:  # type: ignore[override]
        """Answer a stream of requests, in their order."""

        async def answer(request: pb.ModelInferRequest) -> pb.ModelStreamInferResponse:
            try:
                response = pb.ModelStreamInferResponse(
                    infer_response=await self._answer(request, context.time_remaining())
                )
            except Exception as error:  # noqa: BLE001  # becomes the message's error
                response = pb.ModelStreamInferResponse(
                    error_message=message_of(error),
                    infer_response=pb.ModelInferResponse(
                        model_name=request.model_name, model_version=request.model_version, id=request.id
                    ),
                )
            response.infer_response.parameters[wire.FINAL_RESPONSE].bool_param = True
            return response

        await self._intake.serve(context, answer, ordered=True)

    def close_streams(self) -> None:
        """Read no further request from a stream; each ends as soon as what was read is answered."""
        self._intake.close()

    async def _answer(self, request: pb.ModelInferRequest, seconds: float | None) -> pb.ModelInferResponse:
        mode = MONTE_CARLO if is_monte_carlo(request.parameters) else DETERMINISTIC
        with self._calls.begin(mode, request.id, seconds) as call:
            check_request_id(request.id)
            call.served = served = self._repository.find(request.model_name, request.model_version)
            options = read_options(request.parameters, self._settings.default_passes)
            interval = read_interval(request.parameters)
            outputs = wire.read_outputs(request, served.info, options, interval)
            if wire.is_quickly_read(request, _MANY_VALUES):
                features = wire.read_features(request)
            else:
                features = await asyncio.to_thread(wire.read_features, request)
            seconds = read_seconds(request.parameters, seconds)
            try:
                call.job = job = await self._predictor.predict(served, features, options, seconds, interval)
            except InputError as error:
                # The models' names of what a caller may get wrong are those of the parameters.
                field = error.field if error.field == "inputs" else f"parameters.{error.field}"
                raise InvalidRequest(field, str(error)) from error
            if self._calls.holding:
                await self._calls.released(seconds)
            return wire.write_answer(request.id, job, outputs)

    async def _find(self, name: str, version: str, context: Context) -> ServedModel:
        try:
            return self._repository.find(name, version)
        except Exception as error:  # noqa: BLE001  # becomes the call's status
            return await context.abort_with_status(status_of(error))

    def _versions(self, name: str) -> list[str]:
        return [served.version for served, _ in self._repository if served.name == name]
