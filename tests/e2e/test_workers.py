"""Several processes behind one port, and what happens to them."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from dropserve.v1.prediction_pb2 import MonteCarlo
from dropserve.v1.prediction_pb2_grpc import PredictionServiceStub
from dropserve_client import AsyncClient, Client, Prediction
from support.example_repository import rows_for
from support.prediction_client import Asker, refusal_of, request
from support.server_process import TIMEOUT, ServerProcess, serve_to_the_end, server_process

ROWS = rows_for("targets", 1)
SLOW = request("classes", rows_for("classes", 500), MonteCarlo(passes=1000, seed=1))
BARS = {"passes": 60, "seed": 9}
ENDLESS = request("classes", rows_for("classes", 16_000), MonteCarlo(passes=10_000))
# gRPC shares one connection between channels of equal options; these are to have their own.
OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]
CONNECTIONS = 12  # so many that no worker is without one, but once in 2000 times
INFLIGHT = "dropserve_inflight_requests"


@pytest.fixture
def team(repository: Path) -> Iterator[ServerProcess]:
    with server_process(repository, "--workers", "2") as process:
        yield process


@pytest.fixture
def channels(team: ServerProcess) -> Iterator[list[grpc.Channel]]:
    with ExitStack() as stack:
        yield [
            stack.enter_context(grpc.insecure_channel(team.address, OWN_CONNECTION))
            for _ in range(CONNECTIONS)
        ]


def answered(found: dict[str, float]) -> float:
    return sum(value for series, value in found.items() if series.startswith("dropserve_requests_total"))


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def metrics_folder(worker: int) -> Path:
    environment = Path(f"/proc/{worker}/environ").read_bytes().split(b"\0")
    (folder,) = [e.partition(b"=")[2] for e in environment if e.startswith(b"PROMETHEUS_MULTIPROC_DIR=")]
    return Path(folder.decode())


def test_one_page_shows_what_all_workers_did(
    team: ServerProcess, channels: list[grpc.Channel], server: ServerProcess
) -> None:
    team.healthz_until(200)  # a worker has the port open before the supervisor hears of it
    assert team.healthz("?model=targets") == (200, {"status": "SERVING"})
    assert team.healthz("?model=damaged") == (503, {"status": "NOT_SERVING", "failed": {"damaged": [1]}})
    assert team.healthz("?model=targets/2") == (200, {"status": "SERVING"})
    assert team.healthz("?model=nothing") == (404, {"status": "SERVICE_UNKNOWN"})
    for channel in channels:
        for _ in range(5):
            Asker(channel).predict("targets", ROWS)
        Asker(channel).predict("targets", ROWS, MonteCarlo(passes=20))
    det = 'mode="deterministic",model="targets"'
    requests = f'dropserve_requests_total{{code="OK",{det},version="2"}}'
    spread = 'dropserve_passes_total{model="targets"}'  # the last that each worker hands on
    found = team.scrape_until(
        lambda found: found.get(requests) == 5 * CONNECTIONS and found.get(spread) == 20 * CONNECTIONS
    )
    found = team.scrape()
    assert found[requests] == 5 * CONNECTIONS
    assert found[f"dropserve_request_duration_seconds_count{{{det}}}"] == 5 * CONNECTIONS
    assert found[f'dropserve_request_duration_seconds_bucket{{le="+Inf",{det}}}'] == 5 * CONNECTIONS
    assert found['dropserve_passes_total{model="targets"}'] == 20 * CONNECTIONS
    assert found['dropserve_predictive_std_count{model="targets"}'] == CONNECTIONS
    assert found['dropserve_model_load_failures_total{model="damaged"}'] == 2  # each has tried
    assert found["dropserve_workers"] == 2
    versions = [series for series in found if re.match(r'dropserve_model_info.*model="targets"', series)]
    assert [found[series] for series in versions] == [1]
    for worker in ("supervisor", "1", "2"):
        assert found[f'process_resident_memory_bytes{{worker="{worker}"}}'] > 0
    in_supervisor = Path(f"/proc/{team.pid}/maps").read_text(encoding="utf-8")
    assert not re.search("onnxruntime|cygrpc|torch", in_supervisor)

    def families(process: ServerProcess) -> set[str]:
        return {series.partition("{")[0] for series in process.scrape()}

    with grpc.insecure_channel(server.address) as alone:
        Asker(alone).predict("targets", ROWS, MonteCarlo(passes=20))
    assert families(team) - families(server) == {"dropserve_workers", "dropserve_worker_restarts_total"}


async def ask_while_a_worker_dies(
    team: ServerProcess, victim: int
) -> tuple[list[list[str]], list[list[str]]]:
    """What each caller got, call by call: those with the SDK, and those that do not repeat a call.

    Of those with the SDK, half await and half wait, and every other one asks for error bars.
    """
    clients = [AsyncClient(team.address, channel_options=OWN_CONNECTION) for _ in range(CONNECTIONS)]
    waiting = [Client(team.address, channel_options=OWN_CONNECTION) for _ in range(CONNECTIONS)]
    threads = ThreadPoolExecutor(CONNECTIONS)
    modes: list[dict[str, Any]] = [{}, BARS]
    once = [*OWN_CONNECTION, ("grpc.enable_retries", 0)]
    channels = [grpc.aio.insecure_channel(team.address, options=once) for _ in range(CONNECTIONS)]
    stubs = [PredictionServiceStub(channel) for channel in channels]
    with_sdk: list[list[str]] = [[] for _ in range(3 * CONNECTIONS)]
    bare: list[list[str]] = [[] for _ in range(2 * CONNECTIONS)]
    enough = asyncio.Event()
    question = request("targets", ROWS)

    async def caller(ask: Callable[[], Awaitable[object]], outcomes: list[str]) -> None:
        while not enough.is_set():
            try:
                await ask()
                outcomes.append("answered")
            except grpc.aio.AioRpcError as error:
                outcomes.append(f"{error.code().name}: {error.details()}")
            except Exception as error:  # noqa: BLE001  # each is told
                outcomes.append(repr(error))

    async def more(calls: int) -> None:
        """Until every caller has made so many more."""
        enough = [len(outcomes) + calls for outcomes in (*with_sdk, *bare)]
        while any(len(outcomes) < n for outcomes, n in zip((*with_sdk, *bare), enough, strict=True)):
            await asyncio.sleep(0.01)

    with Client(team.address) as first:
        known = [first.predict("targets", ROWS, **mode).mean for mode in modes]

    def checked(prediction: Prediction, mode: int) -> None:
        assert abs(prediction.mean - known[mode]).max() < 1e-5

    async def awaited(client: AsyncClient, mode: int) -> None:
        checked(await client.predict("targets", ROWS, **modes[mode]), mode)

    async def in_a_thread(client: Client, mode: int) -> None:
        loop = asyncio.get_running_loop()
        ask = partial(client.predict, "targets", ROWS, **modes[mode])
        checked(await loop.run_in_executor(threads, ask), mode)

    ways = [partial(awaited, client, number // CONNECTIONS) for number, client in enumerate(clients * 2)]
    ways += [partial(in_a_thread, client, number % 2) for number, client in enumerate(waiting)]
    asking = [caller(ask, outcomes) for ask, outcomes in zip(ways, with_sdk, strict=True)]
    asking += [
        caller(lambda s=stub: s.Predict(question, timeout=TIMEOUT), outcomes)  # type: ignore[misc]
        for stub, outcomes in zip(stubs * 2, bare, strict=True)
    ]
    callers = [asyncio.ensure_future(one) for one in asking]
    await more(5)
    os.kill(victim, signal.SIGSTOP)  # whoever is connected to it has a call in flight, once others go on
    answered = sum(map(len, (*with_sdk, *bare)))
    while sum(map(len, (*with_sdk, *bare))) < answered + 20 * CONNECTIONS:
        await asyncio.sleep(0.01)
    os.kill(victim, signal.SIGKILL)
    await more(15)
    enough.set()
    await asyncio.gather(*callers)
    for client in clients:
        await client.close()
    for each in waiting:
        each.close()
    threads.shutdown()
    for channel in channels:
        await channel.close()
    return with_sdk, bare


def test_a_killed_worker_is_replaced_and_clients_with_retries_do_not_notice(team: ServerProcess) -> None:
    victim = team.workers()[1]
    before = answered(team.scrape())
    with_sdk, bare = asyncio.run(ask_while_a_worker_dies(team, victim))
    assert {outcome for outcomes in with_sdk for outcome in outcomes} == {"answered"}
    failures = [outcome for outcomes in bare for outcome in outcomes if outcome != "answered"]
    assert failures
    # What was in flight, and nothing that went by a new connection. Before it notices, gRPC may send more by
    # the dead one.
    assert {failure.partition(":")[0] for failure in failures} == {"UNAVAILABLE"}
    assert not [failure for failure in failures if "failed to connect" in failure]
    for outcomes in bare:
        assert len(list(groupby(outcomes, "answered".__eq__))) in (1, 3)  # never again once one is answered
    ended = team.wait_for("worker ended", worker=1)
    assert (ended["pid"], ended["how"], ended["restart_in_seconds"]) == (victim, "killed by SIGKILL", 0)

    found = team.scrape_until(lambda found: found["dropserve_workers"] == 2 and found[INFLIGHT] == 0)
    successor = team.workers()[1]
    assert successor != victim
    assert found["dropserve_worker_restarts_total"] == 1
    # What the dead one counted in its last quarter of a second is gone, what it counted before is not.
    since = sum(outcomes.count("answered") for outcomes in (*with_sdk, *bare))
    assert before < answered(found) <= before + since + 6 * CONNECTIONS
    assert found['dropserve_model_load_failures_total{model="damaged"}'] == 3

    os.kill(successor, signal.SIGTERM)  # somebody ends a worker by hand: it drains, and is replaced as well
    ended = team.wait_for("worker ended", pid=successor)
    assert (ended["how"], ended["restart_in_seconds"]) == ("exit status 0", 1)
    team.scrape_until(lambda found: found["dropserve_workers"] == 2)


def test_one_signal_drains_all_even_where_everybody_gets_it(
    team: ServerProcess, channels: list[grpc.Channel]
) -> None:
    workers = team.workers()
    folder = metrics_folder(workers[1])
    assert folder.stat().st_mode & 0o777 == 0o700
    slow = [Asker(channel).stub.Predict.future(SLOW, timeout=TIMEOUT) for channel in channels[:4]]
    team.scrape_until(lambda found: found[INFLIGHT] == len(slow))
    for pid in (*workers.values(), team.pid):  # as systemd does
        os.kill(pid, signal.SIGTERM)
    team.healthz_until(503)
    assert [call.result().passes for call in slow] == [1000] * len(slow)
    assert team.wait() == 0
    assert not folder.exists()
    assert sorted(line["worker"] for line in team.log if line["event"] == "stopped") == [1, 2]
    assert team.log[-1]["event"] == "all stopped"
    assert team.other_lines == []
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", team.grpc_port))


def test_a_second_signal_stops_all_at_once(team: ServerProcess, channels: list[grpc.Channel]) -> None:
    endless = Asker(channels[0]).stub.Predict.future(ENDLESS, timeout=TIMEOUT)
    team.scrape_until(lambda found: found[INFLIGHT] == 1)
    team.signal(signal.SIGTERM)
    team.wait_for("draining")
    team.signal(signal.SIGTERM)
    assert team.wait() == 1
    assert refusal_of(endless.exception()).code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


def test_workers_do_not_outlive_their_supervisor(team: ServerProcess) -> None:
    workers = team.workers().values()
    folders = {metrics_folder(pid) for pid in workers}
    team.signal(signal.SIGKILL)
    team.process.wait(TIMEOUT)
    deadline = time.monotonic() + TIMEOUT
    while any(map(is_alive, workers)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert not any(folder.exists() for folder in folders)


def test_nobody_shares_the_port_by_accident(team: ServerProcess, repository: Path) -> None:
    for options in ([], ["--workers", "2"]):
        done = serve_to_the_end(
            "--repository",
            str(repository),
            "--host",
            "127.0.0.1",
            "--grpc-port",
            str(team.grpc_port),
            *options,
        )
        assert done.returncode == 1
        (line,) = [line for line in done.stderr.splitlines() if "can't listen" in line]
        assert line.startswith(f"dropserve serve: can't listen on gRPC port 127.0.0.1:{team.grpc_port}: ")


def test_what_no_worker_can_start_with_is_told_once(repository: Path) -> None:
    wrong = str(repository / "targets" / "2" / "model.onnx")
    options = ["--repository", str(repository), "--host", "127.0.0.1", "--workers", "2"]
    done = serve_to_the_end(*options, "--tls-certificate", wrong, "--tls-key", wrong)
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert lines == [f"dropserve serve: {wrong} and {wrong} are no certificate and its key in PEM form"]
    assert "worker ended" not in done.stderr
