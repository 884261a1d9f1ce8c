"""The client that awaits: the same thin shell for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc

from dropserve_client import channel, dialogue, wire
from dropserve_client.channel import LoadBalancing, TlsConfig
from dropserve_client.deadline import DEFAULT_TIMEOUT, Deadline, checked_timeout
from dropserve_client.dialogue import Dialogue, KnownModels, Request
from dropserve_client.errors import CallCancelledError, ClosedError, DropserveError, ResourceExhaustedError
from dropserve_client.in_flight import IN_FLIGHT, MAX_IN_FLIGHT, awaited_in_order
from dropserve_client.status import call_error
from dropserve_client.types import Features, Masks, ModelInfo, Prediction, VersionStatus

T = TypeVar("T")


class AsyncClient:
    """`Client` for asyncio: the same methods, awaited.

    The connection belongs to the event loop of the first call. Parameters and errors are those of
    `Client`. Cancelling the task that awaits a call cancels the call.
    """

    def __init__(
        self,
        target: str = "localhost:8001",
        *,
        timeout: float = DEFAULT_TIMEOUT,
        tls: bool | TlsConfig = False,
        token: str | None = None,
        insecure_token: bool = False,
        load_balancing: LoadBalancing = "pick_first",
        request_bytes: int = channel.REQUEST_BYTES,
        request_rows: int = channel.REQUEST_ROWS,
        patient: bool = False,
        channel_options: Sequence[tuple[str, Any]] = (),
    ) -> None:
        self._target = channel.checked_target(target)
        self._timeout = checked_timeout(timeout)
        self._limits = wire.Limits(request_bytes, request_rows)
        self._patient = patient
        self._known: KnownModels = {}
        self._closed = asyncio.Event()
        self._metadata = channel.call_metadata(token, tls, insecure_token)
        self._credentials = channel.credentials(tls)
        self._options = channel.options(load_balancing, tls, channel_options)
        self._channel: grpc.aio.Channel | None = None
        self._methods: dict[type, Callable[..., Any]] = {}

    async def predict(
        self,
        model: str,
        X: Features,
        *,
        version: str | int = "",
        passes: int | None = None,
        seed: int | None = None,
        quantiles: Sequence[float] = (),
        return_samples: bool = False,
        masks: Masks | None = None,
        mean_tolerance: float | None = None,
        std_tolerance: float | None = None,
        interval: float | None = None,
        timeout: float | None = None,
        request_id: str = "",
    ) -> Prediction:
        """As `Client.predict`."""
        ask = wire.question(
            model,
            version=version,
            passes=passes,
            seed=seed,
            quantiles=quantiles,
            return_samples=return_samples,
            masks=masks,
            mean_tolerance=mean_tolerance,
            std_tolerance=std_tolerance,
            interval=interval,
            request_id=request_id,
        )
        return await self._run(dialogue.predict(self._known, ask, X, self._limits), timeout)

    def predict_many(
        self,
        model: str,
        batches: Iterable[Features],
        *,
        version: str | int = "",
        passes: int | None = None,
        seed: int | None = None,
        quantiles: Sequence[float] = (),
        return_samples: bool = False,
        masks: Masks | None = None,
        mean_tolerance: float | None = None,
        std_tolerance: float | None = None,
        interval: float | None = None,
        timeout: float | None = None,
        in_flight: int = 8,
    ) -> AsyncIterator[Prediction]:
        """As `Client.predict_many`, for ``async for``."""
        wire.integer(in_flight, "in_flight", 1, MAX_IN_FLIGHT)
        calls = (
            self.predict(
                model,
                batch,
                version=version,
                passes=passes,
                seed=seed,
                quantiles=quantiles,
                return_samples=return_samples,
                masks=masks,
                mean_tolerance=mean_tolerance,
                std_tolerance=std_tolerance,
                interval=interval,
                timeout=timeout,
            )
            for batch in batches
        )
        return awaited_in_order(calls, in_flight)

    async def list_models(self, *, timeout: float | None = None) -> list[ModelInfo]:
        """As `Client.list_models`."""
        return await self._run(dialogue.list_models(), timeout)

    async def list_not_served(self, *, timeout: float | None = None) -> list[VersionStatus]:
        """As `Client.list_not_served`."""
        return await self._run(dialogue.list_not_served(), timeout)

    async def get_model(
        self, model: str, *, version: str | int = "", timeout: float | None = None
    ) -> ModelInfo:
        """As `Client.get_model`."""
        return await self._run(dialogue.get_model(model, version), timeout)

    async def is_ready(self, model: str = "", *, timeout: float | None = None) -> bool:
        """As `Client.is_ready`."""
        return await self._run(dialogue.is_ready(model), timeout)

    async def wait_until_ready(self, model: str = "", *, timeout: float | None = None) -> None:
        """As `Client.wait_until_ready`."""
        await self._run(dialogue.wait_until_ready(model), timeout)

    async def close(self) -> None:
        """As `Client.close`."""
        self._closed.set()
        if self._channel is not None:
            await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def _connect(self) -> None:
        # Not in the constructor, which may run where there is no event loop yet.
        self._channel = (
            grpc.aio.insecure_channel(self._target, self._options)
            if self._credentials is None
            else grpc.aio.secure_channel(self._target, self._credentials, self._options)
        )
        self._methods = channel.methods(self._channel)

    async def _run(self, steps: Dialogue[T], timeout: float | None) -> T:
        deadline = Deadline(self._timeout if timeout is None else timeout, self._target)
        try:
            step = next(steps)
            while True:
                try:
                    answer = await self._answer(step, deadline)
                except DropserveError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(answer)
        except StopIteration as done:
            result: T = done.value
            return result

    async def _answer(self, step: dialogue.Step, deadline: Deadline) -> Any:
        if isinstance(step, dialogue.Pause):
            await self._wait(deadline.at_most(step.seconds))
            return None
        if not isinstance(step, Iterator):
            return await self._call(step, deadline)
        calls = (self._call(request, deadline) for request in step)
        return [answer async for answer in awaited_in_order(calls, IN_FLIGHT)]

    async def _call(self, request: Request, deadline: Deadline) -> Any:
        while True:
            try:
                return await self._call_once(request, deadline)
            except ResourceExhaustedError as refusal:
                if not self._patient:
                    raise
                pause = deadline.pause(refusal)
            await self._wait(pause)

    async def _wait(self, seconds: float) -> None:
        """Return after so many seconds, or once the client is closed."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closed.wait()

    async def _call_once(self, request: Request, deadline: Deadline) -> Any:
        if self._closed.is_set():
            raise ClosedError("the client is closed")
        if self._channel is None:
            self._connect()
        try:
            return await self._methods[type(request)](
                request, timeout=deadline.remaining(), metadata=dialogue.metadata(request, self._metadata)
            )
        except grpc.aio.AioRpcError as error:
            raise call_error(
                error.code(), error.details(), error.trailing_metadata(), self._target, deadline.message()
            ) from error
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if self._closed.is_set() and not (task and task.cancelling()):
                # Closing the channel cancels its calls; nobody has cancelled the task that awaits them.
                raise CallCancelledError("the client was closed during the call") from error
            raise
