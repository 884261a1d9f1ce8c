"""dropserve.v1.PredictionService: convert, have it predicted, convert."""

from __future__ import annotations

import asyncio
from typing import Any, TypeAlias

import grpc.aio

from dropserve.v1 import prediction_pb2, prediction_pb2_grpc
from dropserve.v1.prediction_pb2 import PredictRequest, PredictResponse
from dropserve_server.errors import Unavailable
from dropserve_server.grpc import wire
from dropserve_server.grpc.calls import Calls
from dropserve_server.grpc.status import code_of, fail, field_of, message_of, status_of
from dropserve_server.grpc.stream import Intake
from dropserve_server.metrics import DETERMINISTIC, MONTE_CARLO
from dropserve_server.predictor import Predictor
from dropserve_server.repository import Repository

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]

# Reading this many repeated floats takes about a millisecond: beyond it, not on the event loop.
_MANY_VALUES = 32_768


class PredictionServicer(prediction_pb2_grpc.PredictionServiceServicer):
    """Answers PredictionService.

    A handler whose caller is still there never raises CancelledError; see `fail`.
    """

    def __init__(
        self,
        repository: Repository,
        predictor: Predictor,
        calls: Calls,
        *,
        default_passes: int,
        stream_concurrency: int,
    ) -> None:
        self._repository = repository
        self._predictor = predictor
        self._calls = calls
        self._default_passes = default_passes
        self._intake = Intake(stream_concurrency)

    async def Predict(self, request: PredictRequest, context: Context) -> PredictResponse:
        """Answer one request."""
        try:
            return await self._answer(request, context.time_remaining())
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # becomes the call's status
            await fail(context, error)

    async def PredictStream(self, _requests: object, context: Context) -> None:  # type: ignore[override]
        """Answer a stream of requests."""
        # Reads and writes by the context, not as a generator: answers come in any order.
        seconds = context.time_remaining

        async def answer(request: PredictRequest) -> PredictResponse:
            try:
                return await self._answer(request, seconds())
            except Exception as error:  # noqa: BLE001  # becomes the message's status
                return PredictResponse(
                    request_id=request.request_id,
                    error=prediction_pb2.Error(
                        code=code_of(error).value[0], message=message_of(error), field=field_of(error)
                    ),
                )

        await self._intake.serve(context, answer)

    async def ListModels(
        self, request: prediction_pb2.ListModelsRequest, context: Context
    ) -> prediction_pb2.ListModelsResponse:
        """Describe every served version of every model, and name those that should be served and are not."""
        if self._repository.loading:
            error = Unavailable("the server is starting: models are being loaded; try again soon")
            await context.abort_with_status(status_of(error))
        return prediction_pb2.ListModelsResponse(
            models=[wire.write_model(served, is_default) for served, is_default in self._repository],
            not_served=[
                wire.write_status(status)
                for status in self._repository.statuses()
                if status.state in ("loading", "failed")
            ],
        )

    async def GetModel(
        self, request: prediction_pb2.GetModelRequest, context: Context
    ) -> prediction_pb2.GetModelResponse:
        """Describe one version of one model."""
        try:
            served = self._repository.find(request.name, request.version)
            is_default = served is self._repository.find(request.name)
            return prediction_pb2.GetModelResponse(model=wire.write_model(served, is_default))
        except Exception as error:  # noqa: BLE001  # becomes the call's status
            return await context.abort_with_status(status_of(error))

    def close_streams(self) -> None:
        """Read no further request from a stream; each ends as soon as what was read is answered."""
        self._intake.close()

    async def _answer(self, request: PredictRequest, seconds: float | None) -> PredictResponse:
        mode = MONTE_CARLO if request.HasField("monte_carlo") else DETERMINISTIC
        with self._calls.begin(mode, request.request_id, seconds) as call:
            wire.check_request_id(request.request_id)
            call.served = served = self._repository.find(request.model, request.version)
            if len(request.inputs.values) < _MANY_VALUES:
                features = wire.read_features(request.inputs)
            else:
                features = await asyncio.to_thread(wire.read_features, request.inputs)
            options = None
            if mode is MONTE_CARLO:
                options = wire.read_monte_carlo(request.monte_carlo, self._default_passes)
            interval = request.interval
            call.job = job = await self._predictor.predict(served, features, options, seconds, interval)
            if self._calls.holding:
                await self._calls.released(seconds)
            answer = wire.write_answer(request.request_id, job)
            if interval:
                wire.write_interval(answer, job)
            return answer
