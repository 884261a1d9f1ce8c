"""Real processes, killed or told to stop at known places."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from dropserve_models import artifact
from dropserve_models.training.config import TrainingConfig
from dropserve_models.training.job import Job
from dropserve_models.training.search.options import SearchOptions
from dropserve_models.training.trainer import train
from support.terminal import closed_amid

TIMEOUT = 60.0

# A checkpoint after every epoch. Where one of a given name has been written, the process says so, and waits
# for the signal that is to come there.
PROGRAM = """
import sys, time
from dropserve_models.training.checkpoint import Checkpoint
halts = tuple(sys.argv.pop(1).split())
Checkpoint.due = lambda self: True
save = Checkpoint.save
def slowly(self, state):
    save(self, state)
    if self.path.name.startswith(halts):
        print("here", file=sys.stderr, flush=True)
        time.sleep(30)
Checkpoint.save = slowly
from dropserve_client.cli.main import main
sys.exit(main())
"""

OPTIONS = {"hidden": "10", "hidden_drop": "0.2", "epochs": "6", "calibration": "0.2"}
JOB = Job("sklearn:wine", "wine", Path("repository"), config=TrainingConfig.from_mapping(OPTIONS))


def command(repository: Path, *more: str) -> list[str]:
    options = [part for name, value in OPTIONS.items() for part in (f"--{name.replace('_', '-')}", value)]
    return ["train", "--data", JOB.data, "--name", JOB.name, "--repository", str(repository), *options, *more]


@contextmanager
def process(halt: str, arguments: list[str]) -> Iterator[subprocess.Popen[str]]:
    """`dropserve`, which says "here" and waits where it has written a checkpoint whose name begins so."""
    child = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, halt, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield child
    finally:
        child.kill()
        child.wait()


def end(child: subprocess.Popen[str], *numbers: int) -> list[str]:
    """Send each signal where the process says that it is here; what else it says on stderr."""
    assert child.stderr is not None
    said: list[str] = []
    for number in numbers:
        while (line := child.stderr.readline()) != "here\n":
            assert line, said
            said.append(line.rstrip("\n"))
        child.send_signal(number)
    rest = child.communicate(timeout=TIMEOUT)[1].splitlines()
    return said + [line for line in rest if line != "here"]


def killed(halt: str, arguments: list[str]) -> None:
    with process(halt, arguments) as child:
        end(child, signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL


def contents(folder: Path) -> dict[str, object]:
    """The bytes of a version's files; without the seconds that the search took."""
    files: dict[str, object] = {path.name: path.read_bytes() for path in folder.iterdir()}
    if "search.json" in files:
        files["search.json"] = json.loads((folder / "search.json").read_bytes()) | {"seconds": None}
    return files


def comes_to_the_same(job: Job) -> None:
    """The run, gone on with, as one that was never stopped; and it leaves nothing else."""
    assert job.checkpoint is not None
    assert job.checkpoint.exists()
    assert not job.repository.exists()
    found = contents(train(job).folder)
    assert not job.checkpoint.exists()
    whole = replace(job, repository=job.repository.with_name("whole"), checkpoint=None)
    assert found == contents(train(whole).folder)
    assert ("search.json" in found, "cross_validation.json" in found) == (
        job.search is not None,
        job.folds > 0,
    )


def test_a_run_killed_and_told_to_stop_comes_to_the_same_bytes(tmp_path: Path) -> None:
    repository, checkpoint = tmp_path / "repository", tmp_path / "checkpoint"
    arguments = command(repository, "--cv", "3", "--checkpoint", str(checkpoint))
    killed("cross-validation-1", arguments)
    with process("fit-1", arguments) as child:
        said = end(child, signal.SIGTERM)
    assert said == [
        f"dropserve train: warning: going on from the checkpoint in {checkpoint}",
        "dropserve train: interrupted; nothing was published; run the same command again to go on",
    ]
    assert child.returncode == 128 + signal.SIGTERM
    comes_to_the_same(replace(JOB, repository=repository, folds=3, checkpoint=checkpoint))


def test_a_search_killed_in_a_setting_and_after_it_comes_to_the_same_bytes(tmp_path: Path) -> None:
    repository, checkpoint = tmp_path / "repository", tmp_path / "checkpoint"
    arguments = command(repository, "--search-trials", "4", "--checkpoint", str(checkpoint))
    killed("search-3-1", arguments)  # while the third fleet learns
    killed("fit-1", arguments)  # the search is over
    config = TrainingConfig.from_mapping(OPTIONS | {"validation": 0.0})
    job = replace(JOB, repository=repository, config=config, search=SearchOptions(trials=4))
    comes_to_the_same(replace(job, checkpoint=checkpoint))


def test_a_search_that_is_told_to_stop_leaves_its_best_so_far(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    arguments = command(tmp_path / "repository", "--search-trials", "20", "--checkpoint", str(checkpoint))
    with process("search-4-1", arguments) as child:
        said = end(child, signal.SIGTERM)
    assert child.returncode == 0, said
    (line,) = said
    assert line.startswith(
        "dropserve train: warning: search interrupted; now training with the best so far, "
    )
    document = json.loads((tmp_path / "repository" / "wine" / "1" / "search.json").read_bytes())
    assert document["stopped"] == "interrupted"
    assert 2 <= len(document["trials"]) < 22
    assert not checkpoint.exists()


def test_a_terminal_that_is_closed_ends_the_search_and_not_the_run(tmp_path: Path) -> None:
    arguments = command(tmp_path / "repository", "--search-trials", "20", "--checkpoint", str(tmp_path / "c"))
    # What it says at its end reaches nobody.
    assert closed_amid(PROGRAM, ["search-4-1", *arguments], timeout=TIMEOUT) == 1
    folder = tmp_path / "repository" / "wine" / "1"
    assert json.loads((folder / "search.json").read_bytes())["stopped"] == "interrupted"
    assert artifact.open_artifact(folder).manifest is not None
