"""Publishes a network, on a disk that is full or until it is killed: ``python -m support.publisher``.

A program of its own, because what is done to it is done to a process.
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import sys
import time
from pathlib import Path

from dropserve_models.errors import ArtifactError
from dropserve_models.manifest import Manifest, sha256_of
from dropserve_models.publishing import publish
from support.onnx_models import Mlp, mlp

SIZES, RATES = [6, 256, 256, 2], [0.1, 0.3, 0.3]


def network(version: int) -> Mlp:
    """Every version is another network."""
    return mlp(SIZES, RATES, seed=version)


def manifest_of(data: bytes) -> Manifest:
    """The manifest of one of these networks."""
    return Manifest(
        task="regression",
        feature_names=tuple("abcdef"),
        output_names=("y", "z"),
        drop_rates=tuple(RATES),
        predicts_noise=False,
        sha256=sha256_of(data),
    )


def main() -> None:
    """Publish; a failure's message on stderr, with status 1."""
    parser = argparse.ArgumentParser(prog="python -m support.publisher", description=main.__doc__)
    parser.add_argument("repository", type=Path)
    parser.add_argument("version", type=int)
    parser.add_argument("--room", type=float, help="share of the model that the disk has room for")
    parser.add_argument(
        "--halt", type=float, help="seconds to wait, and a line to write, before files are synced"
    )
    options = parser.parse_args()
    data = network(options.version).onnx()
    if options.room is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that writing fails, as it does on a full disk
        room = int(options.room * len(data))
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
    if options.halt is not None:
        os.fsync = lambda _: (print(flush=True), time.sleep(options.halt))  # type: ignore[assignment,func-returns-value]
    try:
        publish(options.repository, "net", data, manifest_of(data))
    except ArtifactError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
