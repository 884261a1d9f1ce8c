"""Hours in minutes: requests of every kind, and whether the server's memory grows.

``python -m benchmarks.serving.soak [--seconds 600] [--workers N]`` asks a server with three networks so many
requests a second, of up to 256 rows: deterministic and Monte Carlo, seeded and not, with samples and
quantiles; some name a version that is not there, are cancelled, or have too near a deadline; connections come
and go. Memory is the resident set of all the server's processes. It exits with status 1 where that has grown,
from the end of the first minute (of a shorter run: of its first tenth) to the end, by more than 5 %.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.networks import LARGE, REGRESSION, SMALL, Network, publish
from benchmarks.report import Report, Result
from benchmarks.serving.processes import ServerProcess, dropserve_server
from dropserve_client import AsyncClient, DropserveError

MOST_GROWTH = 1.05
RATE = 100.0
_NETWORKS = (SMALL, LARGE, REGRESSION)
_CLIENTS = 8
_CLIENT_SECONDS = 20.0  # how long a connection lasts
_SETTLED_SECONDS = 60.0
_WINDOW = 10  # samples, one a second, of which the median counts


def main(argv: Sequence[str] | None = None) -> int:
    """Ask, sample the memory, report."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving.soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--rate", type=float, default=RATE, help="requests a second [100]")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results to FILE as well")
    options = parser.parse_args(argv)
    report = Report("soak")
    with TemporaryDirectory() as folder:
        last = measure(report, Path(folder), options.seconds, options.rate, options.workers)
    report.finish(options.json)
    return 0 if last.ratio is not None and last.ratio <= MOST_GROWTH else 1


def measure(report: Report, folder: Path, seconds: float, rate: float = RATE, workers: int = 1) -> Result:
    """Add the memory early and late to the report; the late one."""
    for network in _NETWORKS:
        publish(network, folder / "repository")
    with dropserve_server(folder / "repository", folder / "log", "--workers", str(workers)) as server:
        samples, ended = asyncio.run(_soak(server, seconds, rate))
    settled = round(min(_SETTLED_SECONDS, seconds / 10))
    window = max(1, min(_WINDOW, settled))
    case = f"{workers} worker{'s' * (workers > 1)}, {rate:g} requests a second"
    after = report.add(f"{case}, after {settled} s", "memory", [median(samples[settled:][:window])], "MiB")
    last = report.add(
        f"{case}, after {seconds:g} s", "memory", [median(samples[-window:])], "MiB", against=after
    )
    print("MiB over time:", *(f"{sample:.0f}" for sample in samples[:: max(1, len(samples) // 20)]))
    print("; ".join(f"{count} {how}" for how, count in sorted(ended.items())) + ".")
    return last


async def _soak(server: ServerProcess, seconds: float, rate: float) -> tuple[list[float], Counter[str]]:
    """The server's memory, in MiB, once a second; and how many requests ended in which way."""
    ended: Counter[str] = Counter()
    end = time.monotonic() + seconds
    callers = [
        asyncio.ensure_future(_ask(server.address, end, _CLIENTS / rate, random.Random(number), ended))
        for number in range(_CLIENTS)
    ]
    samples = []
    while time.monotonic() < end:
        await asyncio.sleep(1)
        samples.append(server.resident_bytes() / 2**20)
    await asyncio.gather(*callers)
    return samples, ended


async def _ask(
    address: str, end: float, seconds_between: float, draw: random.Random, ended: Counter[str]
) -> None:
    while time.monotonic() < end:
        async with AsyncClient(
            address, channel_options=[("grpc.use_local_subchannel_pool", 1)], timeout=30
        ) as client:
            client_end = min(end, time.monotonic() + _CLIENT_SECONDS * draw.uniform(0.5, 1.5))
            while time.monotonic() < client_end:
                next_one = time.monotonic() + seconds_between * draw.uniform(0.5, 1.5)
                ended[await _ask_once(client, draw)] += 1
                await asyncio.sleep(max(0.0, next_one - time.monotonic()))


async def _ask_once(client: AsyncClient, draw: random.Random) -> str:
    """One request of any kind; how it ended."""
    network: Network = draw.choice(_NETWORKS)
    rows = np.full((draw.choice((1, 1, 1, 8, 64, 256)), network.sizes[0]), draw.random(), np.float32)
    bars = draw.random() < 0.5
    seed = draw.randrange(100) if bars and draw.random() < 0.5 else None
    call = client.predict(
        network.name,
        rows,
        version=99 if draw.random() < 0.02 else "",
        passes=draw.choice((10, 50, 100)) if bars else None,
        seed=seed,
        quantiles=(0.1, 0.9) if bars and draw.random() < 0.2 else (),
        return_samples=bars and draw.random() < 0.1,
        timeout=0.002 if draw.random() < 0.02 else None,
    )
    task = asyncio.ensure_future(call)
    if draw.random() < 0.05:
        await asyncio.sleep(draw.uniform(0, 0.01))
        task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return "cancelled"
    except DropserveError as error:
        return type(error).__name__
    return "answered"


if __name__ == "__main__":
    sys.exit(main())
