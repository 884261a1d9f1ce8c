from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dropserve_models.errors import CheckpointError
from dropserve_models.training.checkpoint import Checkpoint, CheckpointFolder
from dropserve_models.training.config import TrainingConfig
from dropserve_models.training.fit import Epoch, Trained, fit
from dropserve_models.training.fleet import Examples, Member
from dropserve_models.training.losses import GaussianNoise
from support.training import Killed

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")),
]


def run(checkpoint: Checkpoint | None, stop_after: int = 0, device: str = "cpu", **options: Any) -> Trained:
    random = np.random.default_rng(0)
    x = torch.from_numpy(random.normal(size=(90, 4)).astype(np.float32))
    y = x[:, :1] * x[:, 1:2]
    embeddings: tuple[tuple[int, int], ...] = ()
    if "embedding_width" in options:
        x[:, 3] = torch.from_numpy(random.integers(0, 5, 90).astype(np.float32))
        embeddings = ((6, options["embedding_width"]),)
    config = TrainingConfig.from_mapping(
        {
            "hidden": (10,),
            "hidden_drop": 0.3,
            "epochs": 12,
            "batch_size": 16,
            "patience": 3,
            "learning_rate": 0.05,
        }
        | options
    )
    members = [
        Member(config, rows[25:], rows[: 25 if config.validation else 0], np.random.SeedSequence(seed))
        for seed, rows in enumerate(random.permuted(np.tile(np.arange(90), (5, 1)), axis=1))
    ]
    seen: list[int] = []

    def on_epoch(epochs: Mapping[int, Epoch]) -> tuple[()]:
        seen.append(max(epoch.number for epoch in epochs.values()))
        if stop_after and len(seen) > stop_after:
            raise Killed
        return ()

    return fit(
        members,
        Examples(x, y, embeddings),
        GaussianNoise(1),
        device=device,
        on_epoch=on_epoch,
        checkpoint=checkpoint,
    )


def checkpoint(path: Path, run: str = "this") -> Checkpoint:
    return Checkpoint(path, run)


@pytest.fixture
def always_due(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Checkpoint, "due", lambda self: True)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"optimizer": "sgd", "learning_rate": 0.05, "schedule": "plateau", "decay_epochs": 1},
        {"optimizer": "adam", "validation": 0.0, "schedule": "cosine"},
        {"norm": "batch", "hidden": (10, 10), "residual": True},
        {"embedding_width": 3},
    ],
)
@pytest.mark.parametrize("stop_after", [1, 5])
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.usefixtures("always_due")
def test_a_run_that_goes_on_comes_to_the_same_bytes(
    device: str, options: dict[str, Any], stop_after: int, tmp_path: Path
) -> None:
    if device == "cuda" and "embedding_width" in options:
        pytest.skip("on a GPU, the gradients of embeddings are summed in no fixed order")
    options = options | {"device": device}
    expected = run(None, **options)
    lengths = {len(history.epochs) for history in expected.histories}
    assert (len(lengths) > 1) == (options.get("validation") != 0.0)  # members left at different times
    path = tmp_path / "fleet.npz"
    for _ in range(2):  # killed twice
        with pytest.raises(Killed):
            run(checkpoint(path), stop_after, **options)
    found = run(checkpoint(path), **options)
    assert torch.equal(found.network.parameters, expected.network.parameters)
    assert found.histories == expected.histories
    again = run(checkpoint(path), 1, **options)  # nothing is left to do
    assert torch.equal(again.network.parameters, expected.network.parameters)
    assert again.histories == expected.histories


def test_there_is_nothing_to_execute_in_a_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "fleet.npz"
    run(checkpoint(path), epochs=2)
    with np.load(path, allow_pickle=False) as archive:
        assert all(archive[name].dtype.kind in "fiuU" for name in archive.files)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive", b"\x93NUMPY"])
def test_a_damaged_checkpoint_is_told(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "fleet.npz"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"fleet\.npz is no checkpoint, or damaged: remove it$"):
        checkpoint(path).load()


def test_a_truncated_checkpoint_is_told(tmp_path: Path) -> None:
    path = tmp_path / "fleet.npz"
    checkpoint(path).save({"a": np.arange(1000)})
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint(path).load()


def test_the_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    CheckpointFolder(tmp_path, {"seed": 1}).open("fit-1").save({"a": np.arange(3)})
    same = CheckpointFolder(tmp_path, {"seed": 1})
    assert same.check()
    saved = same.open("fit-1").load()
    assert saved is not None
    assert saved["a"].tolist() == [0, 1, 2]
    with pytest.raises(CheckpointError, match="with other data, options, device or versions: remove it"):
        CheckpointFolder(tmp_path, {"seed": 2}).check()


def test_a_folder_that_can_not_be_written_is_told_beforehand(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="is not a folder that can be written to"):
        CheckpointFolder(tmp_path / "file" / "below", {}).check()


def test_a_folder_that_is_gone_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        CheckpointError, match=r"^can't write .*file/fleet\.npz: (Not a directory|File exists)$"
    ):
        checkpoint(tmp_path / "file" / "fleet.npz").save({})


def test_a_full_disk_keeps_the_former_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "fleet.npz"
    checkpoint(path).save({"a": np.arange(3)})

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        checkpoint(path).save({"a": np.arange(4)})
    saved = checkpoint(path).load()
    assert saved is not None
    assert len(saved["a"]) == 3
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_no_longer_needed_is_removed_and_nothing_else(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path / "kept", {})
    assert not folder.check()
    folder.open("fit-1").save({"a": np.arange(3)})
    (tmp_path / "kept" / "notes.txt").write_text("mine")
    folder.remove()
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["notes.txt"]
    (tmp_path / "kept" / "notes.txt").unlink()
    folder.remove()
    assert list(tmp_path.iterdir()) == []


def test_checkpoints_take_little_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    one = Checkpoint(tmp_path / "fleet.npz", "run", clock=lambda: now[0])
    now[0] = 0.9
    assert not one.due()
    now[0] = 1.0
    assert one.due()

    def slow(_: int) -> None:
        now[0] += 0.1

    monkeypatch.setattr("os.fsync", slow)
    one.save({})
    now[0] += 4.9
    assert not one.due()
    now[0] += 0.11
    assert one.due()
