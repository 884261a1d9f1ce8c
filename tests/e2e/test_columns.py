"""A table with categories and gaps: trained, served, and asked by whatever a caller has."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import polars as pl
import pytest

import dropserve_models
from dropserve_client import AsyncClient, Client, Column, InputError
from dropserve_client.cli.main import main
from dropserve_models.training.config import TrainingConfig
from dropserve_models.training.job import Job
from dropserve_models.training.trainer import train
from support.prediction_client import Asker, array_of
from support.server_process import ServerProcess, server_process

HEADER = "size,colour,wheels,shape,weight"
OPTIONS: dict[str, Any] = {"passes": 60, "seed": 5}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("columns")
    random = np.random.default_rng(0)
    lines = [HEADER]
    for _ in range(300):
        size = random.normal()
        colour, wheels = random.choice(["blue", "red", "red", ""]), random.choice([3, 4, 18])
        shape = f"shape {random.integers(30)}"
        weight = size + {"blue": 5.0, "red": -5.0, "": 0.0}[colour] + 0.1 * wheels + random.normal() / 10
        gap = random.random() < 0.1
        lines.append(f"{'' if gap else f'{size:.3f}'},{colour},{wheels},{shape},{weight:.3f}")
    (path / "data.csv").write_text("\n".join(lines) + "\n")
    config = TrainingConfig(epochs=30, hidden=(16, 16), input_drop=0.05)
    job = Job(
        str(path / "data.csv"),
        "things",
        path / "repository",
        ("weight",),
        categorical=("wheels",),
        config=config,
    )
    train(job)
    return path


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[ServerProcess]:
    with server_process(folder / "repository") as process:
        yield process


ROWS = pl.DataFrame({
    "shape": ["shape 3", "shape 29", "never seen", "shape 0"], "wheels": [3, 18, 4, 5],
    "size": [0.5, None, -1.0, 0.0], "colour": ["red", "blue", None, "green"],
})  # fmt: skip
OBJECTS = ROWS.select("size", "colour", "wheels", "shape").rows()


def test_the_model_says_what_its_columns_hold(served: ServerProcess) -> None:
    with Client(served.address) as client:
        columns = client.get_model("things").columns
    assert columns[:3] == (
        Column("number", (), True),
        Column("category", ("blue", "red"), True),
        Column("category", ("3", "4", "18")),
    )
    assert columns[3].categories == tuple(sorted(f"shape {number}" for number in range(30)))


@pytest.mark.parametrize("options", [{}, OPTIONS], ids=["deterministic", "monte carlo"])
def test_every_way_to_ask_gets_the_same_answer(
    folder: Path, served: ServerProcess, options: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    model = dropserve_models.load(folder / "repository" / "things" / "1")
    expected: Any = model.predict(ROWS, **options)
    shapes = model.info.columns[3].categories
    codes = np.array([
        [0.5, 1, 0, shapes.index("shape 3")], [np.nan, 0, 2, shapes.index("shape 29")], [-1, np.nan, 1, -1],
        [0, 77, 0.5, shapes.index("shape 0")],
    ])  # fmt: skip
    inputs = (ROWS, OBJECTS, codes, codes.astype(np.float32), ROWS.to_arrow())

    async def asked() -> list[Any]:
        async with AsyncClient(served.address) as client:
            return [await client.predict("things", X, **options) for X in inputs]

    with Client(served.address) as client:
        answers: list[Any] = [client.predict("things", X, **options) for X in inputs]
    answers += [*asyncio.run(asked()), model.predict(OBJECTS, **options), model.predict(codes, **options)]
    for answer in answers:
        np.testing.assert_allclose(answer.mean, expected.mean, rtol=1e-5)
        if options:
            np.testing.assert_allclose(answer.variance, expected.variance, rtol=1e-4)

    source, output = folder / "rows.csv", folder / "answers.csv"
    ROWS.write_csv(source)
    flags = [f"--{name}={value}" for name, value in options.items()]
    arguments = [
        "predict",
        "things",
        "--input",
        str(source),
        "--output",
        str(output),
        "--server",
        served.address,
    ]
    assert main([*arguments, *flags]) == 0, capsys.readouterr().err
    np.testing.assert_allclose(pl.read_csv(output)["weight"], expected.mean[:, 0], rtol=1e-4)


def test_the_answers_are_worth_something(folder: Path, served: ServerProcess) -> None:
    table = pl.read_csv(folder / "data.csv")
    with Client(served.address) as client:
        mean = client.predict("things", table).mean[:, 0]
    assert np.corrcoef(mean, table["weight"])[0, 1] > 0.95


def test_an_unseen_category_is_answered_between_the_others(served: ServerProcess) -> None:
    with Client(served.address) as client:
        rows = [[0.0, colour, 4, "shape 1"] for colour in ("red", "green", "blue")]
        red, green, blue = client.predict("things", rows).mean[:, 0]
    assert red < green < blue


def test_what_the_columns_do_not_accept(served: ServerProcess) -> None:
    with Client(served.address) as client:
        with pytest.raises(InputError, match="'wheels' has missing values, which the model does not accept"):
            client.predict("things", ROWS.with_columns(wheels=pl.lit(None)))
        with pytest.raises(InputError, match="X has 3 columns; the model takes 4 features"):
            client.predict("things", [[0.0, "red", 4]])
    with grpc.insecure_channel(served.address) as channel:
        ask = Asker(channel)
        row = np.array([[np.nan, np.nan, 0, 0]], np.float32)
        assert np.isfinite(array_of(ask.predict("things", row).mean)).all()
        for place, value, told in ((2, np.nan, "accepts no missing values"), (0, np.inf, "finite number")):
            wrong = row.copy()
            wrong[0, place] = value
            with pytest.raises(grpc.RpcError) as caught:
                ask.predict("things", wrong)
            assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
            assert told in str(caught.value.details())


def test_large_requests_with_gaps_are_cut_like_others(folder: Path, served: ServerProcess) -> None:
    table = pl.concat([pl.read_csv(folder / "data.csv")] * 40)
    with Client(served.address) as client:
        answer = client.predict("things", table, passes=200, seed=1)
    model = dropserve_models.load(folder / "repository" / "things" / "1")
    np.testing.assert_allclose(
        answer.mean[-300:], model.predict(table[-300:], passes=200, seed=1).mean, rtol=1e-4
    )
