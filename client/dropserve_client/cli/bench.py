"""`dropserve bench`: asks a server for a while, as fast as it answers, and tells how fast that was."""

from __future__ import annotations

import argparse
import asyncio
import math
import re
from collections import Counter
from dataclasses import dataclass, field
from ipaddress import ip_address
from time import perf_counter
from typing import TYPE_CHECKING

from dropserve_client.cli.connection import add_connection_options, client_options, telling_errors
from dropserve_client.cli.text import table

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from dropserve_client import AsyncClient, ModelInfo
    from dropserve_client.types import Features

MOST_SECONDS, MOST_CALLERS, MOST_ROWS = 3600.0, 1024, 16_384
PAUSE_SECONDS = 0.05
"""How long a caller that was refused waits, unless told: asking again at once would measure refusals."""
_PERCENTILES = (50, 90, 99)
_RANDOM_ROWS = 1024
_RESOLVER = re.compile("^(dns|ipv4|ipv6):")
"""What a gRPC target may begin with; after the latter two it may list several addresses."""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "bench",
        help="load a running server for a while, and print rates and percentiles",
        description="Ask a running server from several callers at once, each as fast as it is answered, and "
        "print how many answers came a second and how long they took.",
    )
    parser.add_argument("model", metavar="MODEL", help="the model's name")
    parser.add_argument("--version", default="", metavar="V", help="version of the model (the latest)")
    parser.add_argument("--rows", type=int, default=1, metavar="N", help="rows of a call (%(default)s)")
    parser.add_argument(
        "--input", metavar="FILE", help="take the rows from a file, as predict does (default: random ones)"
    )
    parser.add_argument("--passes", type=int, metavar="N", help="ask for error bars, by so many passes")
    parser.add_argument("--seed", type=int, metavar="S", help="of the masks: every call has the same")
    parser.add_argument(
        "--concurrency", type=int, default=16, metavar="N", help="callers at once (%(default)s)"
    )
    parser.add_argument("--seconds", type=float, default=10.0, metavar="S", help="for how long (%(default)g)")
    parser.add_argument(
        "--remote",
        action="store_true",
        help="load a server even if it is not on this machine",
    )
    add_connection_options(parser)
    parser.set_defaults(run=telling_errors(run), extra=None)


def run(arguments: argparse.Namespace) -> int:
    """Load the server, and print what came of it."""
    _check(arguments)
    return asyncio.run(_run(arguments))


@dataclass
class Tally:
    """What became of the calls.

    Attributes
    ----------
    seconds : list of float
        That each answer took.
    refused, failed : Counter
        Calls without an answer by their status: of a server that has too much to do, and all others.
    failure : str
        What the first of the latter was told.
    """

    seconds: list[float] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    failure: str = ""


async def _run(arguments: argparse.Namespace) -> int:
    from dropserve_client import AsyncClient
    from dropserve_client.cli.reading import read_features

    async with AsyncClient(arguments.server, **client_options(arguments)) as client:
        info = await client.get_model(arguments.model, version=arguments.version)
        rows: Features
        if arguments.input is None:
            rows = random_rows(info, max(_RANDOM_ROWS, arguments.rows))
        else:
            rows = read_features(arguments.input, info.feature_names, info.columns)
        batches = _batches(rows, arguments.rows)
        # What can't be asked is told before the load; and what only a first answer waits for does not count.
        await _ask(client, info, next(batches), arguments)
        tally = Tally()
        begun = perf_counter()
        end = begun + arguments.seconds
        async with asyncio.TaskGroup() as callers:
            for _ in range(arguments.concurrency):
                callers.create_task(_caller(client, info, batches, arguments, end, tally))
        elapsed = perf_counter() - begun
    print(_told(arguments, info, tally, elapsed))
    return 0 if tally.seconds and not tally.failed else 1


async def _caller(
    client: AsyncClient,
    info: ModelInfo,
    batches: Iterator[Features],
    arguments: argparse.Namespace,
    end: float,
    tally: Tally,
) -> None:
    from dropserve_client import DeadlineExceededError, DropserveError, ResourceExhaustedError

    while (begun := perf_counter()) < end:
        try:
            await _ask(client, info, next(batches), arguments)
        except DropserveError as error:
            status = error.code.name if error.code is not None else type(error).__name__
            if isinstance(error, ResourceExhaustedError | DeadlineExceededError):
                tally.refused[status] += 1
            else:
                tally.failed[status] += 1
                tally.failure = tally.failure or str(error)
            pause = error.retry_seconds or PAUSE_SECONDS
            await asyncio.sleep(max(0.0, min(pause, end - perf_counter())))
        else:
            tally.seconds.append(perf_counter() - begun)


async def _ask(client: AsyncClient, info: ModelInfo, batch: Features, arguments: argparse.Namespace) -> None:
    await client.predict(info.name, batch, version=info.version, passes=arguments.passes, seed=arguments.seed)


def random_rows(info: ModelInfo, rows: int) -> NDArray[np.float32]:
    """Rows [rows, features] that the model can be asked: standard normal numbers, and codes of categories."""
    import numpy as np

    random = np.random.default_rng(0)
    values = random.standard_normal((rows, len(info.feature_names)), np.float32)
    for place, column in enumerate(info.columns):
        if column.kind == "category":
            values[:, place] = random.integers(0, max(1, len(column.categories)), rows)
    return values


def _batches(rows: Features, size: int) -> Iterator[Features]:
    """So many rows at a time, from the first on again and again."""
    from dropserve_client import InputError

    count = len(rows)
    if count < size:
        raise InputError(f"the file has {count} rows, and a call is to have {size}; give fewer --rows")
    while True:
        for start in range(0, count - size + 1, size):
            yield rows[start : start + size]


def _check(arguments: argparse.Namespace) -> None:
    from dropserve_client import InputError

    for name, least, most in (
        ("rows", 1, MOST_ROWS),
        ("concurrency", 1, MOST_CALLERS),
        ("seconds", 0.1, MOST_SECONDS),
    ):
        if not least <= getattr(arguments, name) <= most:  # NaN is not
            raise InputError(
                f"--{name} is {getattr(arguments, name):g}; it must be from {least:g} to {most:g}"
            )
    if arguments.seed is not None and arguments.passes is None:
        raise InputError("--seed needs --passes, the number of Monte Carlo passes")
    if not arguments.remote and not is_here(arguments.server):
        raise InputError(
            f"{arguments.server} is not this machine, and the load takes from others who ask it; "
            "--remote says that it is meant"
        )


def is_here(target: str) -> bool:
    """Whether a gRPC target is bound to be on this machine."""
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    addresses = _RESOLVER.sub("", target.rpartition("/")[2])
    return all(map(_is_loopback, addresses.split(",")))


def _is_loopback(address: str) -> bool:
    host = (address.rpartition(":")[0] or address).strip("[]")
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _told(arguments: argparse.Namespace, info: ModelInfo, tally: Tally, elapsed: float) -> str:
    import numpy as np

    mode = "deterministic" if arguments.passes is None else f"{arguments.passes} passes"
    load = f"rows a call: {arguments.rows}, callers: {arguments.concurrency}"
    lines = [f"{info.name} version {info.version}, {mode}, {load}, {elapsed:.1f} s"]
    if tally.seconds:
        rate = len(tally.seconds) / elapsed
        times = [*np.percentile(tally.seconds, _PERCENTILES), max(tally.seconds)]
        header = ["answers", "a second", "rows a second", *(f"p{p} ms" for p in _PERCENTILES), "max ms"]
        figures = [f"{rate:,.1f}", f"{rate * arguments.rows:,.1f}", *(_short(1000 * each) for each in times)]
        lines.append(table(header, [[f"{len(tally.seconds):,}", *figures]], right=range(len(header))))
    else:
        lines.append("no call was answered")
    for what, counts in (("refused", tally.refused), ("failed", tally.failed)):
        if counts:
            listed = ", ".join(f"{count:,} {status}" for status, count in counts.most_common())
            lines.append(f"{what}: {listed}" + (f"; the first: {tally.failure}" if what == "failed" else ""))
    return "\n".join(lines)


def _short(milliseconds: float) -> str:
    """Three digits that count."""
    digits = max(0, 2 - math.floor(math.log10(milliseconds))) if milliseconds > 0 else 0
    return f"{milliseconds:.{min(digits, 3)}f}"
