from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dropserve_models.errors import ArtifactError
from dropserve_models.listing import list_versions
from dropserve_models.manifest import Manifest, sha256_of
from dropserve_models.publishing import check_publishable, publish

MODEL = b"graph"
MANIFEST = Manifest(
    task="regression",
    feature_names=("x",),
    output_names=("y",),
    drop_rates=(),
    predicts_noise=False,
    sha256=sha256_of(MODEL),
)


def content(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_versions_count_up(tmp_path: Path) -> None:
    repository = tmp_path / "new" / "repository"
    first = publish(repository, "model", MODEL, MANIFEST, {"notes.txt": b"hello"})
    assert first == repository / "model" / "1"
    assert content(first) == ["manifest.json", "model.onnx", "notes.txt"]
    assert (first / "model.onnx").read_bytes() == MODEL
    assert Manifest.from_json((first / "manifest.json").read_bytes()) == MANIFEST
    (repository / "model" / "7").mkdir()
    assert publish(repository, "model", MODEL, MANIFEST).name == "8"
    assert not [name for name in content(repository) if ".publish" in name]


def test_others_may_read_what_is_published(tmp_path: Path) -> None:
    (tmp_path / "reference").mkdir()
    folder = publish(tmp_path, "model", MODEL, MANIFEST)
    assert stat.S_IMODE(folder.stat().st_mode) == stat.S_IMODE((tmp_path / "reference").stat().st_mode)


def test_a_stray_file_takes_a_number_and_no_more(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "1").write_text("stray")
    assert publish(tmp_path, "model", MODEL, MANIFEST).name == "2"


def test_a_manifest_of_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="sha256 is not the model's"):
        publish(tmp_path, "model", MODEL + b"!", MANIFEST)
    assert content(tmp_path) == []


@pytest.mark.parametrize("name", ["../escape", ".hidden", ""])
def test_a_wrong_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ArtifactError, match="can't be a model's name"):
        publish(tmp_path / "repository", name, MODEL, MANIFEST)
    assert content(tmp_path) == []


def failing_at(call: int, real: Callable[..., Any]) -> Callable[..., Any]:
    calls = 0

    def fault(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*args)

    return fault


# fsync: model.onnx, manifest.json, notes.txt, the staging folder; after the rename the folders above it.
@pytest.mark.parametrize(("function", "call"), [("fsync", n) for n in range(1, 7)] + [("rename", 1)])
def test_a_full_disk_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, call: int
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, function, failing_at(call, getattr(os, function)))
        with pytest.raises(ArtifactError, match=r"can't publish to .*: No space left on device"):
            publish(tmp_path / "repository", "model", MODEL, MANIFEST, {"notes.txt": b""})
    assert content(tmp_path) == []


def test_a_failure_leaves_earlier_versions_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(tmp_path, "model", MODEL, MANIFEST)
    before = content(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing_at(2, os.fsync))
        with pytest.raises(ArtifactError):
            publish(tmp_path, "model", MODEL, MANIFEST)
    assert content(tmp_path) == before


def test_an_interrupt_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", interrupt)
        with pytest.raises(KeyboardInterrupt):
            publish(tmp_path, "model", MODEL, MANIFEST)
    assert content(tmp_path) == []


def test_nothing_is_visible_before_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[int]] = []
    real = os.fsync

    def watch(descriptor: int) -> None:
        seen.append(list_versions(tmp_path / "model"))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    publish(tmp_path, "model", MODEL, MANIFEST)
    assert seen[:3] == [[], [], []]
    assert set(map(tuple, seen[3:])) == {(1,)}


def test_concurrent_publishers_get_versions_of_their_own(tmp_path: Path) -> None:
    published: list[Path] = []
    ready = threading.Barrier(8)

    def work() -> None:
        ready.wait(timeout=10)
        published.extend(publish(tmp_path, "model", MODEL, MANIFEST) for _ in range(5))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert sorted(int(path.name) for path in published) == list(range(1, 41))
    assert list_versions(tmp_path / "model") == list(range(1, 41))


def test_a_lost_race_takes_the_next_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.rename

    def slow(source: Path, target: Path) -> None:
        monkeypatch.setattr(os, "rename", real)
        publish(tmp_path, "model", MODEL, MANIFEST)  # another publisher, between the listing and the rename
        real(source, target)

    monkeypatch.setattr(os, "rename", slow)
    assert publish(tmp_path, "model", MODEL, MANIFEST).name == "2"
    assert list_versions(tmp_path / "model") == [1, 2]


def test_what_is_bound_to_fail_is_told_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_publishable(tmp_path / "new", "model")
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="is not a folder"):
        check_publishable(tmp_path / "file" / "repository", "model")
    (tmp_path / "model").write_text("")
    with pytest.raises(ArtifactError, match="is not a folder"):
        check_publishable(tmp_path, "model")
    with pytest.raises(ArtifactError, match="can't be a model's name"):
        check_publishable(tmp_path, "a/b")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ArtifactError, match="is not writable"):
        check_publishable(tmp_path, "other")
    assert content(tmp_path) == ["file", "model"]


def test_what_a_killed_publisher_left_goes_with_the_next_one_after_a_day(tmp_path: Path) -> None:
    for name, age in (("old", 25 * 3600), ("recent", 23 * 3600)):
        folder = tmp_path / "model" / f".publish-{name}"
        folder.mkdir(parents=True)
        (folder / "model.onnx").write_bytes(MODEL)
        os.utime(folder, (time.time() - age,) * 2)
    assert list_versions(tmp_path / "model") == []
    publish(tmp_path, "model", MODEL, MANIFEST)
    assert [path.name for path in (tmp_path / "model").glob(".*")] == [".publish-recent"]


def test_a_publisher_that_is_killed_leaves_nothing_that_is_seen(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys\n"
        "from dropserve_models.manifest import Manifest, sha256_of\n"
        "from dropserve_models.publishing import publish\n"
        "os.rename = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "manifest = Manifest(task='regression', feature_names=('x',), output_names=('y',), drop_rates=(),\n"
        "                    predicts_noise=False, sha256=sha256_of(b'graph'))\n"
        "publish(sys.argv[1], 'model', b'graph', manifest)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(content(tmp_path / "model")) == 3  # the hidden folder and its two files
    assert list_versions(tmp_path / "model") == []
    assert publish(tmp_path, "model", MODEL, MANIFEST).name == "1"
