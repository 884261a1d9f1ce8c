"""``dropserve evaluate``, from a trained artifact to table, JSON and page."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from dropserve_models import load
from dropserve_models.training.job import Job
from dropserve_models.training.trainer import train
from support.evaluating import FAST, run


def test_a_regression(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    repository = trained / "repository"
    status = run(
        str(repository / "diabetes" / "1"), "--data", str(trained / "test.csv"), "--passes", "20",
        "--seed", "3", "--ood", "scaled:4", "--baseline", str(repository / "diabetes"),
        "--coverage", ".5,.95,.999", "--json", str(tmp_path / "report.json"),
        "--html", str(tmp_path / "report.html"),
    )  # fmt: skip
    out, err = capsys.readouterr()
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "model     diabetes/1: regression of progression"
    assert lines[1] == "baseline  diabetes/2"
    assert lines[2] == f"data      {trained / 'test.csv'}: 142 rows"
    assert lines[3] == "passes    20, seed 3"
    assert lines[4] == "strange   the same rows, 4 times as far from the mean"

    table = pl.read_csv(trained / "test.csv")
    model = load(repository / "diabetes" / "1")
    error = table["progression"].to_numpy() - model.predict(table, passes=20, seed=3).mean[:, 0]
    document = json.loads((tmp_path / "report.json").read_text())
    assert document["schema_version"] == 1
    assert document["data"] == {"source": str(trained / "test.csv"), "rows": 142}
    assert document["monte_carlo"] == {"passes": 20, "seed": 3}
    figures = document["outputs"][0]["figures"]
    assert figures["monte_carlo"]["rmse"]["value"] == pytest.approx(np.sqrt(np.mean(error**2)))
    assert set(figures) == {"deterministic", "monte_carlo", "baseline_deterministic", "baseline_monte_carlo"}
    # The two versions are the same model.
    assert figures["baseline_monte_carlo"] == figures["monte_carlo"]
    assert {"picp_50", "width_50", "picp_95", "width_95", "ood_auroc"} <= set(figures["monte_carlo"])
    assert document["outputs"][0]["differences"]["monte_carlo - baseline_monte_carlo"]["rmse"]["value"] == 0.0
    # Calibrated by folds, with an interval in both modes.
    y = table["progression"].to_numpy()
    for subject, mode in (("deterministic", {}), ("monte_carlo", {"passes": 20, "seed": 3})):
        answer = model.predict(table, interval=0.95, **mode)  # type: ignore[arg-type]
        assert answer.interval_lower is not None
        assert answer.interval_upper is not None
        lower, upper = answer.interval_lower[:, 0].astype(float), answer.interval_upper[:, 0].astype(float)
        inside = (lower <= y) & (y <= upper)
        assert figures[subject]["interval_picp_95"] == {
            "value": pytest.approx(inside.mean()),
            "standard_error": pytest.approx(inside.std(ddof=1) / np.sqrt(142)),
        }
        assert figures[subject]["interval_width_95"]["value"] == pytest.approx((upper - lower).mean())
        curve = document["outputs"][0]["curves"][subject]["calibrated"]
        assert len(curve["nominal"]) == len(curve["observed"]) == len(curve["mean_size"]) == 49
    gap = "interval is 0.999; the model was calibrated on 300 rows, which tell of coverages up to 0.996677"
    nothing = {"value": None, "standard_error": None, "note": gap}
    assert figures["monte_carlo"]["interval_picp_99.9"] == nothing
    assert figures["monte_carlo"]["interval_width_99.9"] == nothing
    assert out.count(gap) == 1
    assert f"- PICP, 99.9 % calibrated: {gap}" in lines
    page = (tmp_path / "report.html").read_text()
    assert "Learning curves" in page
    assert "In and out of distribution" in page
    assert "deterministic, calibrated" in page
    rmse = re.search(r"^RMSE +(\S+) ±", out, re.MULTILINE)
    assert rmse is not None
    assert rmse[1] in page


def test_classes_and_rows_from_a_file(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pl.DataFrame(np.full((5, 4), 40.0), ["d", "c", "b", "a"]).write_csv(tmp_path / "strange.csv")
    status = run(
        str(trained / "repository" / "iris"), "--data", str(trained / "iris_test.csv"),
        "--ood", str(tmp_path / "strange.csv"), "--passes", "20",
    )  # fmt: skip
    out, err = capsys.readouterr()
    assert (status, err) == (0, "")
    assert "model     iris/1: multiclass of setosa, versicolor, virginica" in out
    assert f"strange   {tmp_path / 'strange.csv'}: 5 rows" in out
    model = load(trained / "repository" / "iris" / "1")
    rows = pl.read_csv(trained / "iris_test.csv")
    chosen = model.predict(rows.drop("kind"), interval=0.8).prediction_set
    assert chosen is not None
    places = [model.info.output_names.index(kind) for kind in rows["kind"]]
    held = re.search(r"^80 % sets, coverage +(\S+) .*\n +mean size +(\S+)", out, re.MULTILINE)
    assert held is not None
    assert float(held[1]) == pytest.approx(chosen[np.arange(50), places].mean(), abs=6e-4)
    assert float(held[2]) == pytest.approx(chosen.sum(axis=1).mean(), abs=6e-4)
    titles = {line.split("  ")[0].strip() for line in out.splitlines()}
    assert {"accuracy", "AUC", "log-likelihood", "Brier score", "ECE", "AUROC, errors"} <= titles


def test_the_same_command_gives_the_same_bytes(trained: Path, tmp_path: Path) -> None:
    for name in "ab":
        run(
            str(trained / "repository" / "iris"), "--data", str(trained / "iris_test.csv"), "--passes", "20",
            "--ood", "shuffled", "--json", str(tmp_path / f"{name}.json"),
            "--html", str(tmp_path / f"{name}.html"),
        )  # fmt: skip
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_the_rows_of_training_are_recognised(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        run(str(trained / "repository" / "iris"), "--data", str(trained / "iris.csv"), "--passes", "5") == 0
    )
    assert (
        "These are the very rows the model was trained on: the figures flatter it." in capsys.readouterr().out
    )


def test_without_dropout(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(trained / "repository" / "plain"), "--data", str(trained / "iris_test.csv")) == 0
    out = capsys.readouterr().out
    assert "No Monte Carlo part: model 'plain' can't answer with error bars" in out
    assert "Monte Carlo  " not in out
    assert "passes" not in out


def test_categories_and_missing_values(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(0)
    size = random.normal(size=200)
    colour = random.choice(["red", "green", "blue"], 200)
    y = size + (colour == "red") + 0.1 * random.normal(size=200)
    table = pl.DataFrame({"size": size, "colour": colour, "y": y})
    table = table.with_columns(
        pl.when(pl.int_range(200) % 9 == 0).then(None).otherwise(pl.col("size")).alias("size")
    )
    table.head(150).write_csv(tmp_path / "train.csv")
    # A category that the model has not seen, and missing values.
    test = table.tail(50).with_columns(colour=pl.concat([pl.Series(["mauve"]), table.tail(49)["colour"]]))
    test.write_csv(tmp_path / "test.csv")
    train(Job(str(tmp_path / "train.csv"), "things", tmp_path / "repository", ("y",), config=FAST))
    for ood in ("shuffled", "scaled", str(tmp_path / "train.csv")):
        status = run(
            str(tmp_path / "repository" / "things"), "--data", str(tmp_path / "test.csv"), "--passes", "10",
            "--ood", ood, "--json", str(tmp_path / "report.json"),
        )  # fmt: skip
        assert (status, capsys.readouterr().err) == (0, "")
    model = load(tmp_path / "repository" / "things" / "1")
    error = test["y"].to_numpy() - model.predict(test.select("size", "colour")).mean[:, 0]
    found = json.loads((tmp_path / "report.json").read_text())["outputs"][0]["figures"]["deterministic"]
    assert found["rmse"]["value"] == pytest.approx(np.sqrt(np.mean(error**2)))
    assert run(str(tmp_path / "repository" / "things"), "--data", str(tmp_path / "train.csv")) == 0
    assert "the very rows the model was trained on" in capsys.readouterr().out
    # A word in a column of numbers, which accepts missing values: an option of training would not help here.
    wrong = test.with_columns(size=pl.concat([pl.Series(["large"]), test["size"].tail(49).cast(pl.String)]))
    wrong.write_csv(tmp_path / "wrong.csv")
    assert run(str(tmp_path / "repository" / "things"), "--data", str(tmp_path / "wrong.csv")) == 2
    assert capsys.readouterr().err == (
        "dropserve evaluate: column 'size', row 1: 'large' is not a number; "
        "the model takes numbers there: correct it\n"
    )


def test_bundled_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(Job("sklearn:iris", "iris", tmp_path / "repository", config=FAST))
    assert run(str(tmp_path / "repository" / "iris"), "--data", "sklearn:iris", "--passes", "5") == 0
    assert "data      sklearn:iris: 150 rows" in capsys.readouterr().out


def test_ctrl_c(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dropserve_models.evaluation.evaluator.evaluate", interrupted)
    arguments = [str(trained / "repository" / "iris"), "--data", str(trained / "iris_test.csv")]
    assert run(*arguments, "--json", str(tmp_path / "report.json")) == 130
    assert capsys.readouterr().err == "dropserve evaluate: interrupted; nothing was written\n"
    assert list(tmp_path.iterdir()) == []


def test_registering_loads_none_of_the_heavy_libraries() -> None:
    script = (
        "import argparse, sys; from dropserve_models.evaluate_cli import register;"
        "register(argparse.ArgumentParser().add_subparsers());"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'pydantic', 'polars', 'sklearn', 'scipy', 'matplotlib'};"
        "print(heavy & sys.modules.keys())"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert result.stdout == "set()\n"
