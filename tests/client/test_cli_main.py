"""The command line's frame: subcommands, exit statuses, one line for every failure."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from importlib import metadata
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from dropserve_client.cli import extras
from dropserve_client.cli import main as cli
from support.fake_server import FakeService


class Entry:
    """An entry point of another package."""

    def __init__(self, name: str, load: Callable[[], Any]) -> None:
        self.name = name
        self.load = load


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function that adds a subcommand "other", which does what it is told."""

    def add(run: Callable[[argparse.Namespace], int], extra: str | None = None) -> None:
        def register(subparsers: Any) -> None:
            parser = subparsers.add_parser("other", help="another package's")
            parser.add_argument("--number", type=int, required=True)
            parser.set_defaults(run=run, extra=extra)

        ours = metadata.entry_points(group=cli.GROUP)
        monkeypatch.setattr(metadata, "entry_points", lambda **_: [*ours, Entry("other", lambda: register)])

    return add


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    out, err = capsys.readouterr()
    assert out == ""
    return err.splitlines()


def raising(error: BaseException) -> Callable[[argparse.Namespace], int]:
    def run(_: argparse.Namespace) -> int:
        raise error

    return run


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"dropserve {metadata.version('dropserve')}\n"


def test_help_lists_every_subcommand_of_every_package(
    capsys: pytest.CaptureFixture[str], command: Callable[..., None]
) -> None:
    command(lambda _: 0, extra="no-such-extra")
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    for name in ("models", "predict", "other"):
        assert re.search(rf"^    {name} ", out, re.MULTILINE)


@pytest.mark.parametrize("status", [0, 1, 2])
def test_a_subcommand_decides_the_exit_status(command: Callable[..., None], status: int) -> None:
    command(lambda arguments: arguments.number)
    assert cli.main(["other", "--number", str(status)]) == status


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ([], "dropserve: the following arguments are required: COMMAND"),
        (["nonsense"], "invalid choice: 'nonsense'"),
        (["other"], "dropserve other: the following arguments are required: --number"),
        (["other", "--number", "x"], "invalid int value: 'x'"),
        (["other", "--num", "1"], "the following arguments are required: --number"),
        (
            ["other", "--number", "1", "--trials", "0"],
            "dropserve other: unrecognized arguments: --trials 0 (dropserve other --help explains)",
        ),
        (["--nonsense"], "dropserve: "),
    ],
)
def test_wrong_usage_is_told_in_one_line(
    capsys: pytest.CaptureFixture[str], command: Callable[..., None], argv: list[str], told: str
) -> None:
    command(lambda _: 0)
    assert cli.main(argv) == 2
    (line,) = lines(capsys)
    assert told in line
    assert line.endswith("--help explains)")


def test_a_missing_package_of_an_extra_names_the_extra(
    capsys: pytest.CaptureFixture[str], command: Callable[..., None]
) -> None:
    command(raising(ModuleNotFoundError("No module named 'torch'", name="torch.nn")), extra="train")
    assert cli.main(["other", "--number", "1"]) == 2
    assert lines(capsys) == ["dropserve other needs the 'train' extra: pip install 'dropserve[train]'"]


def test_who_lacks_an_extra_hears_of_it_before_the_options(
    capsys: pytest.CaptureFixture[str], command: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata, "requires", lambda _: ["no-such-package>=1; extra == 'server'"])
    command(lambda _: 0, extra="server")
    assert cli.main(["other"]) == 2
    assert lines(capsys) == ["dropserve other needs the 'server' extra: pip install 'dropserve[server]'"]


def test_the_packages_of_an_extra_are_read_from_the_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    requirements = [
        "numpy>=1",
        "absent-one>=2,<3; extra == 'train'",
        'absent_two ; extra == "train"',
        "numpy; extra == 'train'",
        "absent-three>=1; (sys_platform == 'linux') and extra == 'train'",
        "absent-four; extra == 'server'",
    ]
    monkeypatch.setattr(metadata, "requires", lambda _: requirements)
    assert extras.missing_packages("train") == ["absent-one", "absent_two"]
    monkeypatch.undo()
    assert any("extra == " in line for line in metadata.requires("dropserve") or ())
    assert extras.missing_packages("no-such-extra") == []


@pytest.mark.parametrize(
    "error",
    [
        KeyError("a\nb"),
        RuntimeError(),
        ModuleNotFoundError("No module named 'dropserve_models.absent'", name="dropserve_models.absent"),
    ],
)
def test_a_bug_is_told_in_one_line_and_shown_on_request(
    capsys: pytest.CaptureFixture[str],
    command: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    command(raising(error), extra="train")
    monkeypatch.delenv("DROPSERVE_DEBUG", raising=False)
    assert cli.main(["other", "--number", "1"]) == 1
    (line,) = lines(capsys)
    assert line.startswith(f"dropserve other failed by a bug: {type(error).__name__}: ")
    assert "DROPSERVE_DEBUG=1" in line
    monkeypatch.setenv("DROPSERVE_DEBUG", "1")
    assert cli.main(["other", "--number", "1"]) == 1
    assert lines(capsys)[0] == "Traceback (most recent call last):"


def test_an_interrupt_is_quiet(capsys: pytest.CaptureFixture[str], command: Callable[..., None]) -> None:
    command(raising(KeyboardInterrupt()))
    assert cli.main(["other", "--number", "1"]) == 130
    assert lines(capsys) == []


def test_a_subcommand_that_cant_be_loaded_harms_no_other(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def load() -> Any:
        raise ImportError("its library is broken")

    ours = metadata.entry_points(group=cli.GROUP)
    monkeypatch.setattr(metadata, "entry_points", lambda **_: [*ours, Entry("other", load)])
    assert cli.main(["models", "--help"]) == 0
    capsys.readouterr()
    assert cli.main(["other", "--number", "1"]) == 1
    (line,) = lines(capsys)
    assert "its library is broken" in line


def test_a_token_comes_from_a_file_or_the_environment(
    service: FakeService,
    run: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "token"
    path.write_text("from-file\n")
    monkeypatch.setenv("DROPSERVE_TOKEN", "from-environment")
    assert run("models", "--insecure-token")[0] == 0
    assert run("models", "--insecure-token", "--token-file", path)[0] == 0
    monkeypatch.setenv("DROPSERVE_TOKEN", "")
    assert run("models")[0] == 0
    told = [authorization for authorization, _ in groupby(service.authorizations)]
    assert told == ["Bearer from-environment", "Bearer from-file", None]


@pytest.mark.parametrize(
    ("content", "options", "told"),
    [
        (b"s3cret", [], "the token would travel in plain text"),
        (b"shop predict sha256:s3cret", ["--insecure-token"], "the token must be text of letters"),
        (b"\xff s3cret", ["--insecure-token"], "is not text"),
        (None, ["--insecure-token"], "can't read the token file"),
    ],
)
def test_a_token_that_cant_be_sent_is_told_in_one_line_without_it(
    run: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
    content: bytes | None,
    options: list[str],
    told: str,
) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    status, out, err = run("models", "--token-file", path, *options)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert told in err
    assert "s3cret" not in err
