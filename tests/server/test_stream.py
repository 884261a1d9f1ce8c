"""A stream's workers: turns at reading, answers as they are ready, an orderly end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc.aio
import pytest

from dropserve_server.grpc.stream import AnswerStream

SECONDS = 10.0


class Connection:
    """What a handler reads from and writes to."""

    def __init__(self) -> None:
        self.requests: asyncio.Queue[object] = asyncio.Queue()
        self.answers: list[object] = []
        self.reading = 0
        self.writing = 0
        self.readable = asyncio.Event()
        self.readable.set()
        self.broken = False

    async def read(self) -> object:
        assert self.reading == 0, "two reads at once"
        self.reading += 1
        try:
            return await self.requests.get()
        finally:
            self.reading -= 1

    async def write(self, answer: object) -> None:
        assert self.writing == 0, "two writes at once"
        self.writing += 1
        await self.readable.wait()
        self.writing -= 1
        if self.broken:
            raise grpc.aio.InternalError("the connection is gone")
        self.answers.append(answer)

    def send(self, *requests: object, end: bool = True) -> None:
        for request in requests:
            self.requests.put_nowait(request)
        if end:
            self.requests.put_nowait(grpc.aio.EOF)


def stream(
    connection: Any, answer: Callable[[Any], Awaitable[Any]], concurrency: int
) -> AnswerStream[Any, Any]:
    return AnswerStream(connection, answer, concurrency)


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), SECONDS))


@pytest.mark.parametrize("concurrency", [1, 2, 7])
def test_every_request_is_answered_once(concurrency: int) -> None:
    async def scenario() -> None:
        connection = Connection()
        connection.send(*range(100))

        async def answer(request: int) -> int:
            await asyncio.sleep(0)
            return -request

        await stream(connection, answer, concurrency).run()
        assert sorted(connection.answers, reverse=True) == [-n for n in range(100)]  # type: ignore[type-var]

    run(scenario)


def test_an_empty_stream_ends() -> None:
    async def scenario() -> None:
        connection = Connection()
        connection.send()
        await stream(connection, asyncio.sleep, 4).run()
        assert connection.answers == []

    run(scenario)


def test_answers_come_when_they_are_ready() -> None:
    async def scenario() -> None:
        connection = Connection()
        gate = asyncio.Event()

        async def answer(request: str) -> str:
            if request == "slow":
                await gate.wait()
            if request == "last":
                gate.set()
            return request

        connection.send("slow", "fast", "last")
        await stream(connection, answer, 2).run()
        assert connection.answers == ["fast", "last", "slow"]

    run(scenario)


def test_no_more_are_answered_at_once_than_allowed_and_no_more_are_read() -> None:
    async def scenario() -> None:
        connection = Connection()
        active, most = 0, 0

        async def answer(request: int) -> int:
            nonlocal active, most
            active += 1
            most = max(most, active)
            await asyncio.sleep(0.001)
            active -= 1
            return request

        connection.send(*range(60))
        await stream(connection, answer, 5).run()
        assert most == 5

    run(scenario)


def test_a_caller_who_does_not_read_is_not_read_from() -> None:
    async def scenario() -> None:
        connection = Connection()
        connection.readable.clear()
        connection.send(*range(100))

        async def answer(request: int) -> int:
            return request

        running = asyncio.ensure_future(stream(connection, answer, 3).run())
        for _ in range(100):
            await asyncio.sleep(0)
        assert connection.requests.qsize() == 101 - 3
        connection.readable.set()
        await running
        assert len(connection.answers) == 100

    run(scenario)


def test_stopping_answers_what_was_read_and_reads_no_more() -> None:
    async def scenario() -> None:
        connection = Connection()
        gate = asyncio.Event()

        async def answer(request: int) -> int:
            await gate.wait()
            return request

        connection.send(*range(10), end=False)
        answering = stream(connection, answer, 4)
        running = asyncio.ensure_future(answering.run())
        while connection.requests.qsize() > 6:
            await asyncio.sleep(0)
        answering.stop()
        gate.set()
        await running
        assert connection.answers == [0, 1, 2, 3]
        assert connection.requests.qsize() == 6

    run(scenario)


def test_stopping_an_idle_stream_ends_it() -> None:
    async def scenario() -> None:
        answering = stream(Connection(), asyncio.sleep, 4)
        running = asyncio.ensure_future(answering.run())
        await asyncio.sleep(0.01)
        answering.stop()
        await running

    run(scenario)


def test_a_lost_connection_ends_quietly_and_drops_the_rest() -> None:
    async def scenario() -> None:
        connection = Connection()
        connection.broken = True
        dropped: list[int] = []

        async def answer(request: int) -> int:
            if request == 0:
                return 0
            try:
                return await asyncio.sleep(SECONDS, request)
            except asyncio.CancelledError:
                dropped.append(request)
                raise

        connection.send(1, 2, 0, end=False)
        await stream(connection, answer, 4).run()
        assert sorted(dropped) == [1, 2]

    run(scenario)


def test_cancelling_the_stream_cancels_its_answers() -> None:
    async def scenario() -> None:
        connection = Connection()
        begun = asyncio.Event()

        async def answer(request: int) -> int:
            begun.set()
            return await asyncio.sleep(SECONDS, request)

        connection.send(1)
        running = asyncio.ensure_future(stream(connection, answer, 4).run())
        await begun.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    run(scenario)


@pytest.mark.parametrize("concurrency", [1, 3, 20])
def test_in_order_answers_wait_for_those_before_them(concurrency: int) -> None:
    async def scenario() -> None:
        connection = Connection()
        answered: list[int] = []

        async def answer(request: int) -> int:
            for _ in range(10 * (7 - request % 7)):
                await asyncio.sleep(0)
            answered.append(request)
            return request

        connection.send(*range(50))
        await AnswerStream(connection, answer, concurrency, ordered=True).run()  # type: ignore[arg-type]
        assert connection.answers == list(range(50))
        assert (answered == sorted(answered)) == (concurrency == 1)

    run(scenario)
