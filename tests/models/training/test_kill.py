from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from dropserve_models import cli
from dropserve_models.training.checkpoint import Checkpoint
from dropserve_models.training.config import TrainingConfig
from dropserve_models.training.fleet import Arrays
from dropserve_models.training.job import Job
from dropserve_models.training.trainer import train

TIMEOUT = 60.0

# A checkpoint after every epoch, and a pause, so that the test need not wait long, nor hurry.
PROGRAM = """
import sys, time
from dropserve_models.training.checkpoint import Checkpoint
Checkpoint.due = lambda self: True
save = Checkpoint.save
Checkpoint.save = lambda self, state: (save(self, state), time.sleep(0.1))
from dropserve_client.cli.main import main
sys.exit(main())
"""

OPTIONS = {"hidden_drop": "0.2", "epochs": "8", "calibration": "0.2"}


def command(repository: Path, checkpoint: Path) -> list[str]:
    options = [part for name, value in OPTIONS.items() for part in (f"--{name.replace('_', '-')}", value)]
    options += ["--data", "sklearn:wine", "--name", "wine", "--cv", "3", "--checkpoint", str(checkpoint)]
    return ["train", *options, "--repository", str(repository)]


def kill_once_there_is(file: Path, arguments: list[str]) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + TIMEOUT
    while not file.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    process.communicate(timeout=TIMEOUT)
    assert process.returncode == -signal.SIGKILL


def interrupt_once_there_is(file: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    save = Checkpoint.save

    def interrupting(checkpoint: Checkpoint, state: Arrays) -> None:
        save(checkpoint, state)
        if file.exists():
            signal.raise_signal(signal.SIGINT)

    parser = argparse.ArgumentParser()
    cli.register(parser.add_subparsers())
    args = parser.parse_args(arguments)
    with monkeypatch.context() as patches:
        patches.setattr(Checkpoint, "due", lambda checkpoint: True)
        patches.setattr(Checkpoint, "save", interrupting)
        assert args.run(args) == 130


def test_a_run_killed_and_interrupted_comes_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    repository, checkpoint = tmp_path / "repository", tmp_path / "checkpoint"
    arguments = command(repository, checkpoint)
    kill_once_there_is(checkpoint / "cross-validation-1.checkpoint.npz", arguments)
    interrupt_once_there_is(checkpoint / "fit-1.checkpoint.npz", arguments, monkeypatch)
    assert capsys.readouterr().err.splitlines() == [
        f"dropserve train: warning: going on from the checkpoint in {checkpoint}",
        "dropserve train: interrupted; nothing was published; run the same command again to go on",
    ]
    assert not repository.exists()

    job = Job("sklearn:wine", "wine", repository, config=TrainingConfig.from_mapping(OPTIONS), folds=3)
    found = train(replace(job, checkpoint=checkpoint)).folder
    assert not checkpoint.exists()
    expected = train(replace(job, repository=tmp_path / "whole")).folder
    files = sorted(expected.iterdir())
    assert "cross_validation.json" in [path.name for path in files]
    for path in files:
        assert (found / path.name).read_bytes() == path.read_bytes(), path.name
