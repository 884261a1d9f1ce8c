"""Publishing an artifact: whole, or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

from dropserve_models.artifact import MANIFEST_FILE, MODEL_FILE, check_model_name
from dropserve_models.errors import ArtifactError
from dropserve_models.listing import list_versions
from dropserve_models.manifest import Manifest, sha256_of

ABANDONED_SECONDS = 24 * 3600
"""A hidden folder this old belongs to a publisher that was killed: no publishing takes so long."""

_STAGING = ".publish-"


def check_publishable(repository: str | Path, name: str) -> None:
    """Raise ArtifactError, before any work is done, where `publish` is bound to fail."""
    check_model_name(name)
    model_folder = Path(os.path.abspath(repository)) / name
    existing = next(folder for folder in (model_folder, *model_folder.parents) if os.path.lexists(folder))
    if not existing.is_dir():
        raise ArtifactError(f"can't publish to {repository}: {existing} is not a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ArtifactError(f"can't publish to {repository}: {existing} is not writable")


def publish(
    repository: str | Path,
    name: str,
    model_bytes: bytes,
    manifest: Manifest,
    extra_files: Mapping[str, bytes] | None = None,
) -> Path:
    """Write the next version of a model: whole, or not at all.

    The files are written and synced in a hidden folder that is then renamed, so no reader sees half
    a version. Concurrent publishers get versions of their own. Hidden folders that killed publishers left
    behind are removed once they are a day old.

    Parameters
    ----------
    extra_files : mapping of str to bytes, optional
        Further files of the version, by plain file name (learning_curve.png, metrics.json).

    Returns
    -------
    Path
        ``REPOSITORY/NAME/VERSION``.

    Raises
    ------
    ArtifactError
        The name or the digest is wrong, or the file system refuses. Nothing is left behind.
    """
    check_model_name(name)
    if manifest.sha256 != sha256_of(model_bytes):
        raise ArtifactError("the manifest's sha256 is not the model's")
    files = {**(extra_files or {}), MODEL_FILE: model_bytes, MANIFEST_FILE: manifest.to_json()}
    model_folder = Path(repository) / name
    created = [folder for folder in (model_folder, *model_folder.parents) if not folder.exists()]
    staging = model_folder / f"{_STAGING}{uuid.uuid4().hex}"
    target = None
    try:
        staging.mkdir(parents=True)
        for file_name, content in files.items():
            _write(staging / file_name, content)
        _sync_folder(staging)
        target = _rename_to_next_version(staging, model_folder)
        for folder in (model_folder, *(folder.parent for folder in created)):
            _sync_folder(folder)
    except BaseException as error:
        if target is not None:
            os.rename(target, staging)  # unseen in one step, before its files go
        shutil.rmtree(staging, ignore_errors=True)
        for folder in created:
            _remove_if_empty(folder)
        if isinstance(error, OSError):
            raise ArtifactError(f"can't publish to {repository}: {error.strerror or error}") from error
        raise
    _remove_abandoned(model_folder)
    return target


def _remove_abandoned(model_folder: Path) -> None:
    """Remove what publishers left behind that were killed."""
    oldest = time.time() - ABANDONED_SECONDS
    for folder in model_folder.glob(f"{_STAGING}*"):
        try:
            if folder.lstat().st_mtime < oldest:
                shutil.rmtree(folder)
        except OSError:
            pass  # another publisher was faster, or may remove it and we may not


def _rename_to_next_version(staging: Path, model_folder: Path) -> Path:
    version = 0
    while True:
        version = max([version, *list_versions(model_folder)]) + 1
        target = model_folder / str(version)
        try:
            os.rename(staging, target)
        except OSError as error:
            # Another publisher was faster, or a stray file has the name: the next number then.
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                raise
        else:
            return target


def _write(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        pass  # never created, or in use by another publisher
