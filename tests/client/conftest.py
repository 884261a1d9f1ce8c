"""A server to ask, and both clients behind one face."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from dropserve_client import AsyncClient, Client
from dropserve_client.cli.main import main
from support.fake_server import FakeService, serving

# gRPC shares one connection between channels of equal options. What an error's traceback keeps of a client
# that found nobody at a port would, until it is collected, tell the next client that nobody is there, though
# the port is another server's by then.
OWN_CONNECTION = ("grpc.use_local_subchannel_pool", 1)


class Driven:
    """An AsyncClient used like a Client: every method is run on an event loop of its own."""

    def __init__(self, client: AsyncClient, runner: asyncio.Runner) -> None:
        self._client = client
        self._runner = runner

    def predict_many(self, *args: Any, **options: Any) -> Iterator[Any]:
        return self._iterate(self._client.predict_many(*args, **options))

    def _iterate(self, answers: Any) -> Iterator[Any]:

        async def one() -> Any:
            return await anext(answers)

        async def close() -> None:
            await answers.aclose()

        try:
            while True:
                try:
                    answer = self._runner.run(one())
                except StopAsyncIteration:
                    return
                yield answer
        finally:
            self._runner.run(close())

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)

        def call(*args: Any, **options: Any) -> Any:
            async def run() -> Any:
                return await method(*args, **options)

            return self._runner.run(run())

        return call


@pytest.fixture(params=["sync", "async"])
def connect(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """A function that makes a client, of either kind, which is closed when the test ends."""
    with ExitStack() as stack:
        runner = stack.enter_context(asyncio.Runner()) if request.param == "async" else None

        def make(target: str, channel_options: Sequence[tuple[str, Any]] = (), **options: Any) -> Any:
            options["channel_options"] = [OWN_CONNECTION, *channel_options]
            client: Any = (
                Client(target, **options)
                if runner is None
                else Driven(AsyncClient(target, **options), runner)
            )
            stack.callback(client.close)
            return client

        yield make


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def address(service: FakeService) -> Iterator[str]:
    """Where `service` is served."""
    with serving(service) as target:
        yield target


@pytest.fixture
def client(connect: Callable[..., Any], address: str) -> Any:
    """Each of the two clients, of `service`."""
    return connect(address)


@pytest.fixture(autouse=True)
def _verbosity(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line sets it for its own process."""
    monkeypatch.setenv("GRPC_VERBOSITY", "NONE")


@pytest.fixture
def run(address: str, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """A function that runs the command line against the server: status, stdout, stderr."""

    def call(*argv: str | Path, server: str = address) -> tuple[int, str, str]:
        status = main([*map(str, argv), "--server", server])
        out, err = capsys.readouterr()
        return status, out, err

    return call


@pytest.fixture
def refusal(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> Callable[..., str]:
    """A function that gives the one line with which a file, or options, are refused with status 2."""

    def call(name: str, content: str | bytes = "", *options: str, model: str = "toy") -> str:
        path = tmp_path / name
        if content:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        status, out, err = run("predict", model, "--input", path, *options)
        assert (status, out) == (2, "")
        assert err.startswith("dropserve predict: ")
        assert err.count("\n") == 1
        return err.removeprefix("dropserve predict: ").replace(f"{tmp_path}/", "").strip()

    return call


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "table.csv"
    path.write_text("label,c,a,b\nx,3,1,2\ny,6,4,5\n")
    return path
