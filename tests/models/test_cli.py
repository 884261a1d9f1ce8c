from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from dropserve_models import cli
from dropserve_models.training import trainer
from dropserve_models.training.config import TrainingConfig
from dropserve_models.training.job import Job

FAST = ["--epochs", "2", "--hidden", "8"]


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="dropserve")
    cli.register(parser.add_subparsers(dest="command", required=True))
    return parser.parse_args(["train", *arguments])


def run(*arguments: str) -> int:
    args = parse(*arguments)
    status = args.run(args)
    assert isinstance(status, int)
    return status


@pytest.fixture
def sonar_like(tmp_path: Path) -> Path:
    path = tmp_path / "data.csv"
    path.write_text("".join(f"{i / 10},{(i * 7) % 10},{'RM'[i % 2]}\n" for i in range(40)))
    return path


def test_a_run_says_what_it_did(sonar_like: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    repository = tmp_path / "repository"
    status = run(
        "--data", str(sonar_like), "--no-header", "--target", "-1", "--name", "sonar",
        "--repository", str(repository), *FAST,
    )  # fmt: skip
    out, err = capsys.readouterr()
    assert (status, err) == (0, "")
    lines = [line.split(maxsplit=1) for line in out.splitlines()]
    assert [title for title, _ in lines] == [
        "data", "task", "trained", "validation", "calibrated", "published", "next",
    ]  # fmt: skip
    said = dict(lines)
    assert said["data"] == f"{sonar_like}: 40 rows, 2 features"
    assert said["task"] == "binary (M, R): 'column_3' holds text"
    assert said["validation"].startswith("8 rows: accuracy ")
    assert said["published"] == str(repository / "sonar" / "1")
    assert said["next"] == f"dropserve serve --repository {repository}"


def test_a_cross_validation_is_a_table(
    sonar_like: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = run(
        "--data", str(sonar_like), "--no-header", "--target", "-1", "--name", "sonar", "--cv", "4",
        "--repeats", "2", "--validation", "0", "--repository", str(tmp_path / "repository"), *FAST,
    )  # fmt: skip
    out, err = capsys.readouterr()
    assert (status, err) == (0, "")
    lines = out.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("cross-validation: "))
    assert lines[start].startswith("cross-validation: 4 folds x 2 repeats in ")
    assert lines[start + 1].split() == ["mean", "s.e.", "sd", "of", "folds", "sd", "of", "repeats"]
    assert [line.split()[0] for line in lines[start + 2 : start + 5]] == ["accuracy", "log", "majority"]
    assert len({len(line) for line in lines[start + 1 : start + 5]}) == 1
    assert all(0.0 <= float(value) <= 1.0 for value in lines[start + 2].split()[1:])
    assert "validation  no rows were held out" in lines


def test_the_options_are_those_of_the_configuration() -> None:
    names = {name.replace("-", "_") for name, *_ in (*cli._OPTIONS, *cli._FLAGS)}
    assert names == set(TrainingConfig.model_fields)


@pytest.mark.parametrize(("name", "metavar", "text"), cli._OPTIONS)
def test_the_help_tells_the_defaults(name: str, metavar: str, text: str) -> None:
    default = TrainingConfig.model_fields[name.replace("-", "_")].default
    shown = ",".join(map(str, default)) if isinstance(default, tuple) else f"{default}"
    expected = {"max-norm": "no limit", "input-drop": "0", "embedding-width": "by the number"}.get(
        name, shown
    )
    assert f"(default: {expected}" in text
    assert metavar


def test_flags_win_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[TrainingConfig] = []

    def record(job: Job, **_: object) -> None:
        seen.append(job.config)
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer, "train", record)
    path = tmp_path / "options.toml"
    path.write_text("hidden = [7, 7]\nhidden_drop = 0.4\nepochs = 9\noptimizer = 'sgd'\n")
    status = run(
        "--data", "sklearn:iris", "--name", "m", "--repository", str(tmp_path), "--config", str(path),
        "--epochs", "3", "--hidden-drop", "0.1,0.2", "--nesterov", "--residual",
    )  # fmt: skip
    assert status == 130
    (config,) = seen
    assert (config.hidden, config.hidden_drop, config.epochs) == ((7, 7), (0.1, 0.2), 3)
    assert (config.optimizer, config.nesterov, config.residual) == ("sgd", True, True)


def test_ctrl_c(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer, "fit_pipelines", interrupted)
    status = run("--data", "sklearn:iris", "--name", "m", "--repository", str(tmp_path / "repository"))
    assert status == 130
    assert capsys.readouterr().err == "dropserve train: interrupted; nothing was published\n"
    assert not (tmp_path / "repository").exists()


def test_a_warning_is_one_line_on_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "data.csv"
    path.write_text("a,b,y\n" + "".join(f"{i},5,{i * i}\n" for i in range(30)))
    status = run(
        "--data", str(path), "--target", "y", "--name", "m", "--repository", str(tmp_path / "r"), *FAST
    )
    assert status == 0
    err = capsys.readouterr().err
    assert err.startswith("dropserve train: warning: constant in the training rows, kept and scaled by 1: b;")
    assert err.count("\n") == 1


TABLE = "a,b,y\n" + "".join(f"{i},{i % 3},{i % 2}\n" for i in range(20))

# What is wrong: the content of data.csv (None: no file), the options, how the line begins.
BAD_INPUT: dict[str, tuple[str | None, list[str], str]] = {
    "missing file": (None, [], "there is no file data.csv"),
    "empty file": ("", [], "data.csv is empty"),
    "unknown extension": (None, ["--data", "data.xls"], "data.xls: unknown kind of file; .csv, .tsv, "),
    "missing target": (
        TABLE,
        ["--target", "z"],
        "data.csv has no column 'z' to be the target; it has: a, b, y",
    ),
    "not a number": (TABLE + "x,1,1\n", [], "column 'a', row 21: 'x' is not a number; most values"),
    "gap in the target": (TABLE + "1,1,\n", [], "column 'y', row 21: the value is missing; fill it, or drop"),
    "no such category column": (
        TABLE,
        ["--categorical", "z"],
        "data.csv has no column 'z' to be categorical",
    ),
    "infinity": (TABLE + "1,inf,1\n", [], "column 'b', row 21: the value is infinite"),
    "ragged": (TABLE + "1,1\n", [], "data.csv, row 21 has 2 fields, the first line has 3"),
    "repeated name": ("a,a,y\n1,2,3\n", [], "data.csv: the column name 'a' occurs more than once"),
    "single class": ("a,y\n1,u\n2,u\n3,u\n4,u\n", [], "column 'y' has a single class (u)"),
    "lonely class": ("a,y\n1,u\n2,u\n3,v\n4,u\n", [], "class v of column 'y' has a single row (3)"),
    "too few rows": ("a,y\n1,2\n2,3\n3,5\n", ["--task", "regression"], "3 rows are too few to hold out"),
    "rate of 1": (TABLE, ["--hidden-drop", "1"], "hidden_drop: a drop rate of 1 would drop everything"),
    "rate below 0": (TABLE, ["--input-drop", "-0.1"], "input_drop: -0.1 is not a drop rate: it is in [0, 1)"),
    "rate above 1": (TABLE, ["--hidden-drop", "0.1,1.5"], "hidden_drop: 1.5 is not a drop rate"),
    "unknown set": (
        None,
        ["--data", "sklearn:mnist"],
        "scikit-learn bundles no data set 'mnist'; there are: b",
    ),
    "bad name": (TABLE, ["--name", "a/b"], "'a/b' can't be a model's name"),
    "unwritable": (TABLE, ["--repository", "data.csv"], "can't publish to data.csv: "),
    "bad option": (TABLE, ["--epochs", "many"], "epochs is 'many': it should be a valid integer"),
    "missing config": (TABLE, ["--config", "none.toml"], "can't read none.toml: No such file or directory"),
    "unknown key": (TABLE, ["--config", "options.toml"], "unknown training option colour; there are: task, "),
    "one fold": (TABLE, ["--cv", "1"], "cross-validation needs at least 2 folds, not 1"),
    "too many folds": (TABLE, ["--cv", "21"], "21 folds are too many for 20 rows"),
    "repeats of nothing": (TABLE, ["--repeats", "3"], "3 repeats of a cross-validation: give at least 1"),
    "bad checkpoint folder": (TABLE, ["--checkpoint", "options.toml/a"], "can't keep checkpoints in options"),
    "damaged checkpoint": (
        TABLE,
        ["--checkpoint", "kept"],
        "kept/fit-1.checkpoint.npz is no checkpoint, or d",
    ),
    "weights for too few": (TABLE, ["--class-weights", "1,2,3"], "class_weights has 3 numbers for 2 classes"),
    "diverged": (
        "a,y\n" + "".join(f"{i},{i * i}\n" for i in range(30)),
        ["--learning-rate", "1e9", "--optimizer", "sgd", "--loss", "mse"],
        "training diverged in epoch ",
    ),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_one_line_and_writes_nothing(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content, options, line = BAD_INPUT[case]
    monkeypatch.chdir(tmp_path)
    Path("options.toml").write_text("colour = 'green'\n")
    Path("kept").mkdir()
    Path("kept/fit-1.checkpoint.npz").write_text("damaged")
    if content is not None:
        Path("data.csv").write_text(content)
    before = sorted(tmp_path.rglob("*"))
    status = run(
        "--data", "data.csv", "--target", "y", "--name", "model", "--repository", "repository", *options
    )
    out, err = capsys.readouterr()
    assert status == 2
    assert err.startswith(f"dropserve train: {line}")
    assert err.count("\n") == 1
    assert out == ""
    assert sorted(tmp_path.rglob("*")) == before


def test_a_failure_to_publish_is_status_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    status = run("--data", "sklearn:iris", "--name", "m", "--repository", str(tmp_path / "r"), *FAST)
    assert status == 1
    assert "No space left on device" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_registering_loads_none_of_the_heavy_libraries() -> None:
    script = (
        "import argparse, sys; from dropserve_models.cli import register;"
        "register(argparse.ArgumentParser().add_subparsers());"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'pydantic', 'polars', 'sklearn', 'matplotlib'};"
        "print(heavy & sys.modules.keys())"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert result.stdout == "set()\n"


def test_a_search_says_what_it_chose_and_why(
    sonar_like: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = run(
        "--data", str(sonar_like), "--no-header", "--target", "-1", "--name", "sonar", "--search-trials", "3",
        "--search-metric", "accuracy", "--repository", str(tmp_path / "repository"), *FAST,
    )  # fmt: skip
    out, err = capsys.readouterr()
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[2].startswith("search: 4 settings, 5 folds")
    assert lines[3].startswith("  without dropout  accuracy ")
    assert lines[4].startswith("  chosen           accuracy ")
    assert "--hidden-drop " in lines[5]
    assert lines[6].startswith("  hidden drop      accuracy expected")
    assert "no rows were held out" in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--search", "0"], "a search can't take 0 seconds"),
        (["--search-trials", "0"], "a search of 0 trials finds nothing"),
        (["--search-metric", "accuracy"], "--search-metric is for a search"),
        (["--search", "9", "--search-metric", "rmse"], "a search by 'rmse' can't be: binary is judged by"),
        (["--search", "9", "--cv", "3"], "a search can't be combined with a cross-validation"),
    ],
)
def test_a_search_that_can_not_be_is_one_line(
    options: list[str], message: str, sonar_like: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = run(
        "--data", str(sonar_like), "--no-header", "--target", "-1", "--name", "sonar",
        "--repository", str(tmp_path / "repository"), *options, *FAST,
    )  # fmt: skip
    out, err = capsys.readouterr()
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert message in err
    assert not (tmp_path / "repository").exists()
