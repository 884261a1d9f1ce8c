"""What workers and their supervisor are made of."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dropserve_models.inference.deterministic import available_cores
from dropserve_server.administration import Administration
from dropserve_server.errors import StartupError
from dropserve_server.process import prepare
from dropserve_server.repository import Repository
from dropserve_server.settings import Settings
from dropserve_server.shelf import Orders
from dropserve_server.workers.channel import Channel
from dropserve_server.workers.collector import WorkersCollector
from dropserve_server.workers.descriptors import hold_listeners_high
from dropserve_server.workers.handle import Handle, how_it_ended
from dropserve_server.workers.orders import write_orders
from dropserve_server.workers.port import reserved
from dropserve_server.workers.supervisor import restart_delay
from dropserve_server.workers.worker import Membership
from support.shelf import Shelf


def listen(port: int, *, shared: bool) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shared)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_a_reserved_port_is_for_those_who_share_it(host: str) -> None:
    with reserved("gRPC", host, 0) as port:
        assert port > 0
        with pytest.raises(OSError, match="in use"):
            listen(port, shared=False)
        with listen(port, shared=True), listen(port, shared=True):
            with socket.create_connection(("127.0.0.1", port), timeout=10):
                pass
            for other in (host, "127.0.0.1"):
                with (
                    pytest.raises(StartupError, match=f"can't listen on gRPC port {other}:{port}: .*in use"),
                    reserved("gRPC", other, port),
                ):
                    pass
    listen(port, shared=False).close()


def test_a_listening_socket_is_held_by_a_high_descriptor() -> None:
    with listen(0, shared=False) as listener, socket.create_connection(listener.getsockname(), timeout=10):
        before = set(os.listdir("/proc/self/fd"))
        held = hold_listeners_high()
        try:
            assert set(os.listdir("/proc/self/fd")) - before <= set(map(str, held))
            names = [os.readlink(f"/proc/self/fd/{descriptor}") for descriptor in held]
            assert os.readlink(f"/proc/self/fd/{listener.fileno()}") in names
            assert min(held) > max(listener.fileno(), 500)
            assert all(fcntl.fcntl(descriptor, fcntl.F_GETFD) & fcntl.FD_CLOEXEC for descriptor in held)
        finally:
            for descriptor in held:
                os.close(descriptor)


def test_delays_grow_to_a_minute() -> None:
    assert [restart_delay(failures) for failures in range(1, 10)] == [0, 1, 2, 4, 8, 16, 32, 60, 60]
    assert restart_delay(10**9) == 60


def test_an_end_is_told_in_words() -> None:
    assert [how_it_ended(status) for status in (0, 1, -9, -64, -50)] == [
        "exit status 0",
        "exit status 1",
        "killed by SIGKILL",
        "killed by SIGRTMAX",
        "killed by signal 50",
    ]


def test_a_channel_carries_messages_until_the_other_side_dies() -> None:
    async def scenario() -> None:
        one, two = socket.socketpair()
        ours, theirs = await Channel.over(one), await Channel.over(two)
        ours.send(do="drain", text="two\nlines", large="x" * 200_000)
        ours.send(do="abort")
        assert await theirs.receive() == {"do": "drain", "text": "two\nlines", "large": "x" * 200_000}
        assert await theirs.receive() == {"do": "abort"}
        ours.close()
        assert await theirs.receive() is None
        theirs.send(state="nobody hears it")
        await theirs.flush()
        theirs.close()

    asyncio.run(asyncio.wait_for(scenario(), 30))


class Ended:
    """A process that is no more."""

    pid = 1
    returncode = 0

    async def wait(self) -> int:
        return 0


def test_a_worker_that_has_ended_follows_no_order_and_keeps_none_waiting() -> None:
    async def scenario() -> None:
        one, two = socket.socketpair()
        ours, theirs = await Channel.over(one), await Channel.over(two)
        worker = Handle(1, cast(asyncio.subprocess.Process, Ended()), ours)
        before = asyncio.ensure_future(worker.follow(["reload"]))
        assert await theirs.receive() == {"do": "follow", "order": 0, "what": ["reload"]}
        theirs.close()
        assert await worker.watch(lambda: None, lambda *_: None) == 0
        assert await before is None
        assert await worker.follow(["reload"]) is None

    asyncio.run(asyncio.wait_for(scenario(), 30))


class Told:
    """A channel's end that keeps what is said."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.coming: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

    def send(self, **message: Any) -> None:
        self.messages.append(message)

    async def receive(self) -> dict[str, Any] | None:
        return await self.coming.get()


def test_a_worker_tells_of_its_orders_once_it_has_joined_the_others(tmp_path: Path) -> None:
    async def scenario() -> None:
        shelf = Shelf(tmp_path, "m/1")
        started_with, joined_with = {"m": Orders(withheld=True)}, {"m": Orders(without=frozenset({7}))}
        repository = Repository(tmp_path, shelf.load, shelf.metrics, orders=started_with)
        await repository.load(1, shelf.tell)
        channel = Told()
        membership = Membership(cast(Channel, channel), started_with)
        membership.administered(Administration(repository))
        server = SimpleNamespace(stop=lambda: None)
        obeying = asyncio.ensure_future(membership.obey(cast(Any, server)))
        membership.report({}, {})
        channel.coming.put_nowait({"do": "follow", "order": 1, "what": ["list_versions"]})
        while len(channel.messages) < 2:
            await asyncio.sleep(0.001)
        assert not [message for message in channel.messages if "orders" in message], "they may be too old"
        channel.coming.put_nowait({"do": "join", "orders": write_orders(joined_with)})
        await membership.loaded()
        membership.report({}, {})
        assert channel.messages[-1]["orders"] == write_orders(joined_with)
        channel.coming.put_nowait(None)
        await obeying

    asyncio.run(asyncio.wait_for(scenario(), 30))


@pytest.mark.parametrize(
    ("workers", "threads", "expected"),
    [(1, None, available_cores()), (2, None, max(1, available_cores() // 2)), (256, None, 1), (2, 5, 5)],
)
def test_workers_share_the_cores(
    workers: int, threads: int | None, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GRPC_VERBOSITY", "GRPC_EXPERIMENTS"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    settings = Settings(repository=tmp_path, workers=workers, threads=threads, monte_carlo_workers=2)
    assert prepare(settings).threads == expected
    assert os.environ["OMP_NUM_THREADS"] == str(threads or max(1, expected // 2)), "two are computed at once"


def test_a_scrape_that_meets_a_file_being_made_is_repeated(tmp_path: Path) -> None:
    new = tmp_path / "counter_1.db"
    new.touch()  # and not yet given its size
    scrapes = 0

    def pids() -> dict[str, int]:
        nonlocal scrapes
        scrapes += 1
        return {"1": os.getpid()}

    collector = WorkersCollector(tmp_path, pids)
    with pytest.raises(Exception, match="unpack"):
        list(collector.collect())
    new.write_bytes(bytes(2**16))
    names = {family.name for family in collector.collect()}
    assert "process_resident_memory_bytes" in names
    assert scrapes == 1
