"""The client that waits: a thin shell around the dialogues."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc

from dropserve_client import channel, dialogue, wire
from dropserve_client.channel import LoadBalancing, TlsConfig
from dropserve_client.deadline import DEFAULT_TIMEOUT, Deadline, checked_timeout
from dropserve_client.dialogue import Dialogue, KnownModels, Request
from dropserve_client.errors import CallCancelledError, ClosedError, DropserveError, ResourceExhaustedError
from dropserve_client.in_flight import IN_FLIGHT, MAX_IN_FLIGHT, in_order
from dropserve_client.status import call_error
from dropserve_client.types import Features, Masks, ModelInfo, Prediction, VersionStatus
from dropserve_client.wanted import Wanted

T = TypeVar("T")


class Client:
    """Asks a dropserve server for predictions. Thread-safe; one client can serve a whole application.

    Parameters
    ----------
    target : str
        ``HOST:PORT``, or any gRPC name that has a port (``dns:///name:8001``, ``unix:/path``).
    timeout : float
        Seconds that a call may take in all, unless it is told otherwise; math.inf for no limit.
    tls : bool or TlsConfig
        Whether to encrypt, and with which certificates.
    token : str, optional
        The bearer token that goes with every call.
    insecure_token : bool
        Whether the token may travel without TLS: to a server on this machine, or where something else
        encrypts.
    load_balancing : {"pick_first", "round_robin"}
        round_robin spreads the calls over every address that the name stands for.
    request_bytes, request_rows : int
        The largest request to send; larger inputs are split by rows into several. The default size is
        what every gRPC server accepts.
    patient : bool
        Whether a call that is refused because the server's queue is full waits as long as the server asks,
        and is made again, within its timeout. Else `ResourceExhaustedError` is raised at once.
    channel_options : sequence of (str, value)
        gRPC channel arguments that win over those chosen here.

    Raises
    ------
    InputError
        For a target without a port, certificates that can't be read, or a token without TLS. A server
        that is not there is found by the first call.
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
        self._open = Wanted()
        self._metadata = channel.call_metadata(token, tls, insecure_token)
        credentials = channel.credentials(tls)
        options = channel.options(load_balancing, tls, channel_options)
        self._channel = (
            grpc.insecure_channel(target, options)
            if credentials is None
            else grpc.secure_channel(target, credentials, options)
        )
        self._methods = channel.methods(self._channel)

    def predict(
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
        """Predict rows; `passes` asks for error bars by Monte Carlo dropout.

        Parameters
        ----------
        model : str
        X : array-like or frame, [rows, features]
            Anything numpy can read, converted to float32. The columns of a pandas, polars or pyarrow
            frame are matched by name; those the model doesn't know are ignored.
            Categories are given by name in a frame or an array of objects, by code in an array of numbers;
            None and NaN are missing values, where a column accepts them. See `ModelInfo.columns`.
        version : str or int
            Empty: the latest.
        passes : int, optional
            Stochastic dropout passes. None: one deterministic pass.
        seed : int, optional
            0 <= seed < 2**64: fixes the masks, so that the same request gets the same answer.
        quantiles : sequence of float
            Quantiles over the passes to return, each within [0, 1].
        return_samples : bool
            Whether to return every pass's output.
        masks : {"stratified", "independent"}, optional
            How the masks of the passes relate to each other. None: the server's default, stratified.
        mean_tolerance, std_tolerance : float, optional
            Stop before `passes`, row by row, once the standard error of the mean (of the standard
            deviation) is at most this share of the row's standard deviation, e.g. 0.1.
        interval : float, optional
            Coverage, within (0, 1), of the calibrated interval (regression) or prediction set (classifiers)
            to return, e.g. 0.9.
        timeout : float, optional
            Seconds for the whole prediction. None: the client's; math.inf: no limit.
        request_id : str
            Comes back in the answer, and is in the server's log beside a failure.

        Raises
        ------
        DropserveError
            See `dropserve_client.errors`.

        Notes
        -----
        An input too large for one request is split by rows into several, which one version of the
        model answers. In Monte Carlo mode they share the masks, whether or not a seed is given, so the
        samples are joint over all rows.
        """
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
        return self._run(dialogue.predict(self._known, ask, X, self._limits), timeout)

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
    ) -> Iterator[Prediction]:
        """Predict many batches, several at a time, and yield the predictions in the batches' order.

        At most `in_flight` batches are read ahead, so the source may be endless. `timeout` holds for
        each batch. The first failure ends the iteration. The other parameters are those of `predict`.
        """
        wire.integer(in_flight, "in_flight", 1, MAX_IN_FLIGHT)

        def ask(batch: Features, wanted: Wanted) -> Prediction:
            asked = wire.question(
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
            )
            return self._run(dialogue.predict(self._known, asked, batch, self._limits), timeout, wanted)

        return in_order((partial(ask, batch) for batch in batches), in_flight, self._open)

    def list_models(self, *, timeout: float | None = None) -> list[ModelInfo]:
        """Every served version of every model, by name and then by version."""
        return self._run(dialogue.list_models(), timeout)

    def list_not_served(self, *, timeout: float | None = None) -> list[VersionStatus]:
        """Every version that should be served and is not: it is being loaded, or could not be."""
        return self._run(dialogue.list_not_served(), timeout)

    def get_model(self, model: str, *, version: str | int = "", timeout: float | None = None) -> ModelInfo:
        """What one version of a model is; the latest where none is named."""
        return self._run(dialogue.get_model(model, version), timeout)

    def is_ready(self, model: str = "", *, timeout: float | None = None) -> bool:
        """Whether the server, or one of its models, answers requests; False where none is there."""
        return self._run(dialogue.is_ready(model), timeout)

    def wait_until_ready(self, model: str = "", *, timeout: float | None = None) -> None:
        """Wait until the server, or one of its models, answers requests: it is starting, or has yet to start.

        Raises
        ------
        DeadlineExceededError
            It does not within `timeout` seconds; the message says what it does instead.
        """
        self._run(dialogue.wait_until_ready(model), timeout)

    def close(self) -> None:
        """Close the connection; calls under way are cancelled, and none waits to be made. Idempotent."""
        self._open.end()
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, steps: Dialogue[T], timeout: float | None, wanted: Wanted | None = None) -> T:
        deadline = Deadline(self._timeout if timeout is None else timeout, self._target)
        try:
            step = next(steps)
            while True:
                try:
                    answer = self._answer(step, deadline, self._open if wanted is None else wanted)
                except DropserveError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(answer)
        except StopIteration as done:
            result: T = done.value
            return result

    def _answer(self, step: dialogue.Step, deadline: Deadline, wanted: Wanted) -> Any:
        if isinstance(step, dialogue.Pause):
            wanted.wait(deadline.at_most(step.seconds))
            return None
        if not isinstance(step, Iterator):
            return self._call(step, deadline, wanted)
        calls = (partial(self._call, request, deadline) for request in step)
        return list(in_order(calls, IN_FLIGHT, wanted))

    def _call(self, request: Request, deadline: Deadline, wanted: Wanted) -> Any:
        while True:
            try:
                return self._call_once(request, deadline, wanted)
            except ResourceExhaustedError as refusal:
                if not self._patient:
                    raise
                wanted.wait(deadline.pause(refusal))

    def _call_once(self, request: Request, deadline: Deadline, wanted: Wanted) -> Any:
        if not self._open:
            raise ClosedError("the client is closed")
        if not wanted:
            raise CallCancelledError("nobody waits for the answer any more")
        try:
            return self._methods[type(request)](
                request, timeout=deadline.remaining(), metadata=dialogue.metadata(request, self._metadata)
            )
        except grpc.RpcError as error:
            # What a multi-callable raises is a grpc.Call as well.
            raise call_error(
                error.code(), error.details(), error.trailing_metadata(), self._target, deadline.message()
            ) from error
        except ValueError as error:
            if not self._open:  # closed by another thread, just now
                raise ClosedError("the client is closed") from error
            raise
