"""What ``dropserve evaluate`` refuses: in one line, before anything is written."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from support.evaluating import run

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
