"""Bidirectional streams of requests and answers, and their end when the server drains."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

import grpc.aio

from dropserve_server.errors import InvalidRequest, Unavailable
from dropserve_server.grpc.status import fail

Request = TypeVar("Request")
Response = TypeVar("Response")


class AnswerStream(Generic[Request, Response]):
    """Answers the requests of one stream, several at a time, each as soon as it is ready.

    A few workers take turns at reading, and each answers what it has read. So no task is made a
    message, and a caller who does not read its answers is not read from either.

    Parameters
    ----------
    context : grpc.aio.ServicerContext
    answer : callable
        Answers one request; must not raise.
    concurrency : int
        Most requests being answered at the same time.
    ordered : bool
        Whether answers go out in the order of their requests, not as soon as they are ready.
    """

    def __init__(
        self,
        context: grpc.aio.ServicerContext[Any, Any],
        answer: Callable[[Request], Awaitable[Response]],
        concurrency: int,
        *,
        ordered: bool = False,
    ) -> None:
        self._context = context
        self._answer = answer
        self._concurrency = concurrency
        self._ordered = ordered
        self._last: asyncio.Event | None = None  # set once the request that was read last is answered
        self._workers = 0
        self._readers: set[asyncio.Task[None]] = set()  # reading, or waiting for their turn to
        self._reading = asyncio.Lock()
        self._writing = asyncio.Lock()
        self._ended = False
        self._undecodable: InvalidRequest | None = None

    async def run(self) -> None:
        """Return when the caller has closed its side, or `stop` was called, and all is answered.

        Raises
        ------
        InvalidRequest
            A request could not be decoded. Those before it are answered, those behind it are not read.
        """
        try:
            async with asyncio.TaskGroup() as group:
                self._add_worker(group)
        except* grpc.aio.InternalError:
            pass  # the connection is gone: nobody is left to answer
        if self._undecodable is not None:
            raise self._undecodable

    def stop(self) -> None:
        """Read no further request; those that were read are still answered."""
        self._ended = True
        for reader in self._readers:
            reader.cancel()

    def _add_worker(self, group: asyncio.TaskGroup) -> None:
        self._workers += 1
        group.create_task(self._work(group))

    async def _work(self, group: asyncio.TaskGroup) -> None:
        while (request := await self._read()) is not None:
            if not self._readers and self._workers < self._concurrency:
                self._add_worker(group)
            before = answered = None
            if self._ordered:
                # Nothing was awaited since the read, so this is the order of reading.
                before, self._last = self._last, (answered := asyncio.Event())
            response = await self._answer(request)
            if before is not None:
                await before.wait()
            async with self._writing:
                await self._context.write(response)
            if answered is not None:
                answered.set()

    async def _read(self) -> Request | None:
        """The next request, or None at the end."""
        task = asyncio.current_task()
        assert task is not None
        self._readers.add(task)
        try:
            async with self._reading:
                if self._ended:
                    return None
                try:
                    request = await self._context.read()
                except InvalidRequest as error:
                    self._ended, self._undecodable = True, error
                    return None
                self._ended = request is grpc.aio.EOF
                return None if self._ended else request
        finally:
            self._readers.discard(task)


class Intake:
    """The streams of one service.

    Parameters
    ----------
    concurrency : int
        Most requests of one stream being answered at the same time.
    """

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency
        self._closed = False
        self._streams: set[AnswerStream[Any, Any]] = set()

    def close(self) -> None:
        """Read no further request; each stream ends as soon as what was read from it is answered."""
        self._closed = True
        for stream in self._streams:
            stream.stop()

    async def serve(
        self,
        context: grpc.aio.ServicerContext[Any, Any],
        answer: Callable[[Request], Awaitable[Response]],
        *,
        ordered: bool = False,
    ) -> None:
        """Answer a stream to its end, and set its status where that is not OK. `answer` must not raise."""
        stream = AnswerStream(context, answer, self._concurrency, ordered=ordered)
        self._streams.add(stream)
        try:
            if not self._closed:
                await stream.run()
            if self._closed:
                raise Unavailable("the server is draining; try another, or again soon")
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # becomes the call's status
            await fail(context, error)
        finally:
            self._streams.discard(stream)
