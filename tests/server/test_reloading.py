"""Values that follow their files."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from dropserve_server import reloading
from dropserve_server.errors import SettingsError
from dropserve_server.reloading import Reloaded, keep_up_to_date


class Number(Reloaded[int]):
    """A number in a file."""

    def __init__(self, path: Path) -> None:
        self.reads = 0

        def read() -> int:
            self.reads += 1
            try:
                return int(path.read_text())
            except (OSError, ValueError):
                raise SettingsError("no number") from None

        super().__init__("number", [path], read)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "number"
    file.write_text("1")
    return file


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records]


def test_an_unchanged_file_is_not_read_again(path: Path) -> None:
    number = Number(path)
    for _ in range(3):
        number.refresh()
    assert (number.value, number.reads) == (1, 1)


def test_a_changed_file_is(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "dropserve")
    number = Number(path)
    path.write_text("22")
    number.refresh()
    replacement = path.with_name("new")
    assert number.value == 22
    replacement.write_text("33")  # as many bytes, another file
    replacement.rename(path)
    number.refresh()
    assert number.value == 33
    assert events(caplog) == ["files reloaded"] * 2


def test_a_symbolic_link_that_turns_elsewhere_is_a_change(path: Path, tmp_path: Path) -> None:
    other, link = tmp_path / "other", tmp_path / "link"
    other.write_text("2")
    link.symlink_to(path)
    number = Number(link)
    link.unlink()
    link.symlink_to(other)  # how Kubernetes exchanges the files of a secret
    number.refresh()
    assert number.value == 2


def test_a_broken_file_leaves_the_old_value_is_told_once_and_looked_at_again(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "dropserve")
    number = Number(path)
    path.write_text("x")
    for _ in range(3):
        number.refresh()
    path.unlink()
    number.refresh()
    assert number.value == 1
    assert events(caplog) == ["files not reloaded"]
    path.write_text("5")
    number.refresh()
    assert number.value == 5
    assert events(caplog) == ["files not reloaded", "files reloaded"]


def test_the_first_reading_must_succeed(tmp_path: Path) -> None:
    with pytest.raises(SettingsError):
        Number(tmp_path / "none")


def test_it_is_kept_up_to_date_until_cancelled(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reloading, "POLL_SECONDS", 0.01)

    async def scenario() -> None:
        number = Number(path)
        following = asyncio.ensure_future(keep_up_to_date([number]))
        path.write_text("2222")
        async with asyncio.timeout(20):
            while number.value != 2222:
                await asyncio.sleep(0.01)
        following.cancel()
        with pytest.raises(asyncio.CancelledError):
            await following

    asyncio.run(scenario())
