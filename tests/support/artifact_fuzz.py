"""Loads mutated artifacts: each is served right, or refused in one line. ``python -m support.artifact_fuzz``.

A crash of the runtime would take the whole process with it, so this is a program of its own; before each
artifact it writes to stdout which one it is.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import Message

from dropserve_models import load
from dropserve_models.errors import InputError, MemoryLimitError, ModelsError, MonteCarloUnavailable
from dropserve_models.manifest import Manifest, sha256_of
from dropserve_models.messages import walk
from dropserve_models.prediction import MonteCarloOptions
from support.onnx_models import mlp

MAX_SECONDS = 20.0  # for one artifact, on a busy machine
GROWTH = 1.25  # of resident memory, from the first tenth of the run to its end

_SEEDS = (
    mlp([6, 8, 8, 3], [0.1, 0.2, 0.5], last="Softmax").onnx(),
    mlp([4, 8, 2], [0.0, 0.3]).onnx(gemm=True),
    mlp([5, 16, 1], [0.0, 0.4], last="Sigmoid").onnx(),
)
_NUMBERS = (0, 1, 2, 3, 7, -1, 127, 128, 2**31 - 1, 2**31, 2**40, 2**62, -(2**63))
_OPERATORS = [
    "Dropout",
    "Gemm",
    "MatMul",
    "Relu",
    "Loop",
    "If",
    "Scan",
    "Expand",
    "Tile",
    "Reshape",
    "Cast",
    "Sin",
    "Concat",
    "ConstantOfShape",
    "Identity",
]

Mutation = Callable[[random.Random, bytes], bytes]


def flip_bits(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data))]


def splice(rng: random.Random, data: bytes) -> bytes:
    start, length, target = rng.randrange(len(data)), rng.randrange(1, 200), rng.randrange(len(data))
    return data[:target] + data[start : start + length] + data[target + rng.choice((0, length)) :]


def change_fields(rng: random.Random, data: bytes) -> bytes:
    """Well-formed protobuf that says something else."""
    model = onnx.ModelProto.FromString(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        messages = list(walk(model))
        message = rng.choice(messages)
        _change(rng, message, messages)
    return model.SerializeToString()


def _change(rng: random.Random, message: Message, others: list[Message]) -> None:
    if isinstance(message, onnx.NodeProto) and rng.random() < 0.4:
        message.op_type = rng.choice(_OPERATORS)
        return
    set_fields = message.ListFields()
    if not set_fields:
        return
    field, value = rng.choice(set_fields)
    if isinstance(value, bool | float):
        setattr(message, field.name, type(value)(rng.choice((0.0, 1.0, -1.0, 1e38, float("nan")))))
    elif isinstance(value, int):
        try:
            setattr(message, field.name, rng.choice(_NUMBERS))
        except ValueError:  # out of the field's range
            message.ClearField(field.name)
    elif isinstance(value, str):
        names = [name for other in others for name in (getattr(other, "name", ""),) if name]
        setattr(message, field.name, rng.choice((*names, "", "\n", "x" * 5000)))
    elif isinstance(value, bytes):
        setattr(message, field.name, value[: rng.randrange(len(value) + 1)])
    elif isinstance(value, Message):
        message.ClearField(field.name)
    elif len(value):
        index = rng.randrange(len(value))
        match rng.randrange(3):
            case 0:
                del value[index]
            case 1:
                value.append(value[index]) if not isinstance(value[index], Message) else value.add().CopyFrom(
                    value[index]
                )
            case _ if isinstance(value[index], int):
                try:
                    value[index] = rng.choice(_NUMBERS)
                except ValueError:
                    value[index] = 0


_MUTATIONS: tuple[Mutation, ...] = (flip_bits, cut, splice, change_fields, change_fields, change_fields)


def manifest_of(rng: random.Random, data: bytes) -> bytes | None:
    """No manifest, a fitting one, or a damaged one."""
    kind = rng.random()
    if kind < 0.6:
        return None
    good = Manifest(
        task="regression",
        feature_names=tuple("abcdef"[: rng.choice((4, 5, 6))]),
        output_names=tuple("xyz"[: rng.choice((1, 2, 3))]),
        drop_rates=(),
        predicts_noise=False,
        sha256=sha256_of(data),
    ).to_json()
    return good if kind < 0.8 else rng.choice((flip_bits, cut, splice))(rng, good)


def try_out(folder: Path) -> str:
    """Load the artifact and ask it; what came of it."""
    try:
        model = load(folder, device="cpu", threads=1, max_bytes=2**20)
    except ModelsError as error:
        message = str(error)
        assert message, "an empty message"
        assert "\n" not in message, message
        assert len(message) < 2000, message
        return "refused"
    rows = np.ones((2, len(model.info.feature_names)), np.float32)
    try:
        mean = model.run(rows).mean
        assert mean.shape == (2, len(model.info.output_names)), mean.shape
        assert np.isfinite(mean).all()
        if model.monte_carlo_unavailable is None:
            assert np.isfinite(model.run(rows, MonteCarloOptions(passes=4, seed=1)).mean).all()
    except (InputError, MemoryLimitError, MonteCarloUnavailable):
        return "answered, not for these rows"
    return "answered"


def resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096


def fuzz(count: int, seed: int, first: int = 0) -> Counter[str]:
    """Try `count` artifacts; the outcomes, counted."""
    outcomes: Counter[str] = Counter()
    settled = 0
    with tempfile.TemporaryDirectory() as root:
        for number in range(first, first + count):
            print(number, flush=True)
            rng = random.Random(f"{seed}-{number}")
            data = rng.choice(_MUTATIONS)(rng, rng.choice(_SEEDS))
            folder = Path(root) / "model" / str(number + 1)
            folder.mkdir(parents=True)
            (folder / "model.onnx").write_bytes(data)
            if (manifest := manifest_of(rng, data)) is not None:
                (folder / "manifest.json").write_bytes(manifest)
            started = time.monotonic()
            outcomes[try_out(folder)] += 1
            assert time.monotonic() - started < MAX_SECONDS
            shutil.rmtree(folder)
            if number == first + count // 10:
                settled = resident_bytes()
    last = resident_bytes()
    assert last < GROWTH * settled, f"resident memory grew from {settled} to {last} bytes"
    return outcomes


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="begin with this artifact of the seed's")
    arguments = parser.parse_args()
    found = fuzz(arguments.count, arguments.seed, arguments.first)
    print(dict(found), file=sys.stderr)
