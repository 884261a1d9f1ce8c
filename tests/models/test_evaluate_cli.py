"""``dropserve evaluate``, from a trained artifact to table, JSON and page."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.datasets import load_diabetes, load_iris

from dropserve_models import evaluate_cli, load
from dropserve_models.training.config import TrainingConfig
from dropserve_models.training.job import Job
from dropserve_models.training.trainer import train

FAST = TrainingConfig(epochs=3, hidden=(8,), calibration="none")
CALIBRATED = FAST.model_copy(update={"calibration": "cv"})


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser(prog="dropserve")
    evaluate_cli.register(parser.add_subparsers(dest="command", required=True))
    args = parser.parse_args(["evaluate", *arguments])
    status = args.run(args)
    assert isinstance(status, int)
    return status


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables, and a repository: two equal versions of a regression, a classifier, one without dropout."""
    folder = tmp_path_factory.mktemp("trained")
    diabetes = load_diabetes(scaled=False)
    table = pl.DataFrame(diabetes.data, list(diabetes.feature_names))
    table = table.with_columns(progression=diabetes.target)
    table.head(300).write_csv(folder / "train.csv")
    # In another order, and with a column that no model takes.
    test = table.tail(142).with_columns(name=pl.lit("somebody"))
    test.select(reversed(test.columns)).write_csv(folder / "test.csv")
    iris = load_iris()
    flowers = pl.DataFrame(iris.data, ["a", "b", "c", "d"])
    flowers = flowers.with_columns(kind=pl.Series(iris.target_names[iris.target].tolist())).sample(
        fraction=1, shuffle=True, seed=1
    )
    flowers.head(100).write_csv(folder / "iris.csv")
    flowers.tail(50).write_csv(folder / "iris_test.csv")
    repository = folder / "repository"
    train(Job(str(folder / "train.csv"), "diabetes", repository, ("progression",), config=CALIBRATED))
    shutil.copytree(repository / "diabetes" / "1", repository / "diabetes" / "2")
    train(Job(str(folder / "iris.csv"), "iris", repository, ("kind",), config=CALIBRATED))
    plain = FAST.model_copy(update={"hidden_drop": (0.0,)})
    train(Job(str(folder / "iris.csv"), "plain", repository, ("kind",), config=plain))
    return folder


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


IRIS = "a,b,c,d,kind\n5.1,3.5,1.4,0.2,setosa\n7.0,3.2,4.7,1.4,versicolor\n"

# What is wrong: the content of data.csv, the options, how the line begins.
WRONG: dict[str, tuple[str, list[str], str]] = {
    "no artifact": (IRIS, ["ARTIFACT=none"], "there is no model in none: give REPOSITORY/MODEL/VERSION, or"),
    "damaged artifact": (IRIS, ["ARTIFACT=damaged/iris/1"], "damaged/iris/1/model.onnx is not the file that"),
    "no file": (IRIS, ["--data", "none.csv"], "there is no file none.csv"),
    "no rows": ("a,b,c,d,kind\n", [], "data.csv has no rows below its header"),
    "no column": (
        IRIS.replace("b,c", "b,e"),
        [],
        "data.csv has no column 'c', which iris/1 needs; it has: a, b",
    ),
    "no target": (
        "a,b,c,d\n1,2,3,4\n",
        [],
        "which column of data.csv holds the classes? name it with --target; t",
    ),
    "two targets": (
        "a,b,c,d,kind,colour\n5.1,3.5,1.4,0.2,setosa,red\n",
        [],
        "which column of data.csv holds the classes? name it with --target; besides the features there a",
    ),
    "unknown target": (
        IRIS,
        ["--target", "z"],
        "data.csv has no column 'z' to be the target; it has: a, b, c, d, k",
    ),
    "unknown class": (
        IRIS + "1,2,3,4,rose\n",
        [],
        "column 'kind', row 3: 'rose' is no class of iris/1; it has: set",
    ),
    "missing class": (IRIS + "1,2,3,4,\n", [], "column 'kind', row 3: the value is missing"),
    "not a number": (IRIS + "1,x,3,4,setosa\n", [], "column 'b', row 3: 'x' is not a number"),
    "passes": (IRIS, ["--passes", "0"], "passes is 0; it must be from 1 to"),
    "coverage": (
        IRIS,
        ["--coverage", "95"],
        "--coverage is '95': it should be shares within (0, 1), e.g. 0.5,0.9",
    ),
    "ood factor": (IRIS, ["--ood", "scaled:x"], "--ood is 'scaled:x': give a factor above 1, e.g. scaled:3"),
    "ood file": (IRIS, ["--ood", "none.csv"], "there is no file none.csv"),
    "another task": (
        IRIS,
        ["--baseline", "REPOSITORY/diabetes"],
        "the baseline diabetes/2 does not answer what i",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_one_line_and_writes_nothing(
    case: str,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    content, options, line = WRONG[case]
    monkeypatch.chdir(tmp_path)
    Path("data.csv").write_text(content)
    shutil.copytree(trained / "repository", "damaged")
    with Path("damaged/iris/1/model.onnx").open("ab") as file:
        file.write(b"more")
    artifact = str(trained / "repository" / "iris")
    if options and options[0].startswith("ARTIFACT="):
        artifact, options = options[0].removeprefix("ARTIFACT="), options[1:]
    options = [option.replace("REPOSITORY", str(trained / "repository")) for option in options]
    before = sorted(tmp_path.rglob("*"))
    status = run(artifact, "--data", "data.csv", "--json", "out.json", "--html", "out.html", *options)
    out, err = capsys.readouterr()
    assert err.replace(f"{tmp_path}/", "").startswith(f"dropserve evaluate: {line}")
    assert err.count("\n") == 1
    assert (status, out) == (2, "")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_place_that_can_t_be_written_is_told_before_the_work(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = run(
        str(trained / "repository" / "iris"), "--data", str(trained / "iris_test.csv"),
        "--json", str(tmp_path / "none" / "report.json"),
    )  # fmt: skip
    out, err = capsys.readouterr()
    assert (status, out) == (1, "")
    assert "there is no folder" in err
    assert err.count("\n") == 1


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
