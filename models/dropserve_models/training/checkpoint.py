"""What a training run needs to go on after it was killed, on disk."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import os
import time
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from dropserve_models.errors import CheckpointError
from dropserve_models.training.fleet import Arrays

SHORTEST_SECONDS = 1.0
"""From one checkpoint to the next."""

TIMES_THE_COST = 50
"""Of a checkpoint, to pass before the next: a fiftieth of the time goes into them."""

_FORMAT = 1
_SUFFIX = ".checkpoint.npz"


class CheckpointFolder:
    """The checkpoints of one run, a file for each of its fleets, and one for its search.

    Files are replaced atomically, hold plain arrays (NPZ, no pickle), and name the run they are of.

    Parameters
    ----------
    folder : Path
        Made when the first checkpoint is written.
    run : dict
        All that decides on the run's result, JSON: a checkpoint of another run is refused.
    """

    def __init__(self, folder: Path, run: dict[str, Any]) -> None:
        self._folder = folder
        self._run = _digest({"format": _FORMAT} | run)
        self._choice = ""

    def after(self, choice: Any) -> CheckpointFolder:
        """The same folder, for what follows from a choice made in the run: another choice has other files.

        Parameters
        ----------
        choice : JSON
        """
        folder = copy.copy(self)
        folder._choice = f"-{_digest(choice)[:8]}"
        return folder

    def open(self, name: str) -> Checkpoint:
        """The checkpoint of the fleet of that name."""
        return Checkpoint(self._folder / f"{name}{self._choice}{_SUFFIX}", self._run)

    def discard(self, start: str) -> None:
        """Delete the checkpoints whose names start with that."""
        for path in self._folder.glob(f"{start}*{_SUFFIX}"):
            path.unlink(missing_ok=True)

    def check(self) -> bool:
        """Whether there is something to go on from.

        Raises
        ------
        CheckpointError
            The folder holds another run's checkpoint, or can't be used.
        """
        folder = Path(os.path.abspath(self._folder))
        existing = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
        if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
            raise CheckpointError(
                f"can't keep checkpoints in {self._folder}: {existing} is not a folder that can be written to"
            )
        found = sorted(self._folder.glob(f"*{_SUFFIX}"))
        for path in found:
            Checkpoint(path, self._run).load()
        return bool(found)

    def remove(self) -> None:
        """Delete what was kept, when the run's result is safe."""
        for path in self._folder.glob(f"*{_SUFFIX}*"):
            path.unlink(missing_ok=True)
        try:
            self._folder.rmdir()
        except OSError:
            pass  # it holds something else


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


class Checkpoint:
    """The last state of one fleet.

    Parameters
    ----------
    path : Path
    run : str
        Names the run.

    Attributes
    ----------
    path : Path
    """

    def __init__(self, path: Path, run: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.path = path
        self._run = run
        self._clock = clock
        self._last = clock()
        self._cost = 0.0

    def due(self) -> bool:
        """Whether it is time to save."""
        return self._clock() - self._last >= max(SHORTEST_SECONDS, TIMES_THE_COST * self._cost)

    def save(self, state: Arrays) -> None:
        """Replace the state on disk; a crash at any moment leaves the former one or this one.

        Raises
        ------
        CheckpointError
            The file system refuses.
        """
        started = self._clock()
        buffer = io.BytesIO()
        arrays: dict[str, Any] = {"run": np.array(self._run), **state}
        np.savez(buffer, **arrays)
        temporary = self.path.with_name(f".{self.path.name}.new")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                file.write(buffer.getbuffer())
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path)
        except OSError as error:
            raise CheckpointError(f"can't write {self.path}: {error.strerror}") from error
        finally:
            # Where there is no folder to write to, there is none to remove it from either.
            with suppress(OSError):
                temporary.unlink()
        self._last = self._clock()
        self._cost = self._last - started

    def load(self) -> Arrays | None:
        """The state saved last; None where there is none.

        Raises
        ------
        CheckpointError
            It is damaged, or of another run.
        """
        try:
            with self.path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                state: Arrays = {name: archive[name] for name in archive.files}
        except FileNotFoundError:
            return None
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
            raise CheckpointError(f"{self.path} is no checkpoint, or damaged: remove it") from error
        if str(state.pop("run", "")) != self._run:
            raise CheckpointError(
                f"{self.path} is of a run with other data, options, device or versions: "
                "remove it, or name another folder"
            )
        return state
