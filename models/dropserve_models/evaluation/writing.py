"""Writing a report: whole, or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from dropserve_models.errors import ReportError


def check_writable(path: str | Path) -> None:
    """Raise ReportError, before any work is done, where `write_whole` is bound to fail."""
    path = Path(path)
    folder = Path(os.path.abspath(path)).parent
    if path.is_dir():
        raise ReportError(f"can't write {path}: it is a folder")
    if not folder.is_dir():
        raise ReportError(f"can't write {path}: there is no folder {folder}")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise ReportError(f"can't write {path}: permission denied")


def write_whole(path: str | Path, content: bytes) -> None:
    """Replace a file in one step; readers see the former one or this one.

    Raises
    ------
    ReportError
        The file system refuses. Nothing is left behind.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(content)  # a pipe or a device: there is nothing to replace
            return
        target = path.resolve()
        descriptor, temporary = tempfile.mkstemp(prefix=f".{target.name[:100]}.", dir=target.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, target)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise ReportError(f"can't write {path}: {error.strerror or error}") from error


def _umask() -> int:
    mask = os.umask(0)  # there is no other way to read it
    os.umask(mask)
    return mask
