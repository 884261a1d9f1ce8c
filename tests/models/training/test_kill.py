from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from dropserve_models.training.config import TrainingConfig
from dropserve_models.training.job import Job
from dropserve_models.training.trainer import train

TIMEOUT = 60.0

# A checkpoint after every epoch, so that the test need not wait for one.
PROGRAM = """
import sys
from dropserve_models.training.checkpoint import Checkpoint
Checkpoint.due = lambda self: True
from dropserve_client.cli.main import main
sys.exit(main())
"""


OPTIONS = {"hidden_drop": "0.2", "epochs": "60"}


def start(repository: Path, checkpoint: Path) -> subprocess.Popen[str]:
    options = [part for name, value in OPTIONS.items() for part in (f"--{name.replace('_', '-')}", value)]
    options += ["--data", "sklearn:wine", "--name", "wine", "--cv", "3", "--checkpoint", str(checkpoint)]
    command = [sys.executable, "-c", PROGRAM, "train", *options, "--repository", str(repository)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def stop_once_there_is(pattern: str, folder: Path, process: subprocess.Popen[str], how: int) -> str:
    deadline = time.monotonic() + TIMEOUT
    while not list(folder.glob(pattern)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(how)
    return process.communicate(timeout=TIMEOUT)[1]


def test_a_run_killed_and_interrupted_comes_to_the_same_bytes(tmp_path: Path) -> None:
    repository, checkpoint = tmp_path / "repository", tmp_path / "checkpoint"
    killed = start(repository, checkpoint)
    stop_once_there_is("cross-validation-1.checkpoint.npz", checkpoint, killed, signal.SIGKILL)
    assert killed.returncode == -signal.SIGKILL

    interrupted = start(repository, checkpoint)
    err = stop_once_there_is("fit-1.checkpoint.npz", checkpoint, interrupted, signal.SIGINT)
    assert interrupted.returncode == 130
    assert err.splitlines() == [
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
