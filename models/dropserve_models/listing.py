"""What lies in a repository folder, ``REPOSITORY/NAME/VERSION``: names, versions, and whether they changed.

Nothing is opened here: names and attributes of files are all that is looked at.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TypeAlias

from dropserve_models.errors import ArtifactError

Signature: TypeAlias = tuple[tuple[str, int, int, int], ...]
"""Name, inode, size in bytes and time of change in nanoseconds of everything in a version's folder. Links are
followed, so that a link to another file (as Kubernetes updates its mounts) is a change too."""

_MODEL = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}", re.ASCII)
_VERSION = re.compile(r"[1-9][0-9]{0,17}", re.ASCII)


def is_model_name(name: str) -> bool:
    """Whether `name` can be a model's: up to 128 letters, digits, '_', '-' and '.', the first not '.'."""
    return _MODEL.fullmatch(name) is not None


def is_version(text: str) -> bool:
    """Whether `text` is a version: a positive integer in decimal, as its folder is named."""
    return _VERSION.fullmatch(text) is not None


def list_models(repository: str | Path) -> list[str]:
    """Names of the models that have at least one version, sorted.

    A model whose own folder can't be listed is among them: `list_versions` says why.

    Raises
    ------
    ArtifactError
        The repository can't be listed.
    """
    try:
        with os.scandir(repository) as entries:
            names = sorted(entry.name for entry in entries if is_model_name(entry.name) and _is_folder(entry))
    except OSError as error:
        raise ArtifactError(f"can't list the repository {repository}: {error.strerror}") from error
    return [name for name in names if _has_versions(Path(repository) / name)]


def list_versions(model_folder: str | Path) -> list[int]:
    """Versions in ``REPOSITORY/NAME``, ascending; none where there is no such folder.

    Raises
    ------
    ArtifactError
        The folder can't be listed.
    """
    try:
        with os.scandir(model_folder) as entries:
            return sorted(
                int(entry.name) for entry in entries if is_version(entry.name) and _is_folder(entry)
            )
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ArtifactError(f"can't list {model_folder}: {error.strerror}") from error


def find_version(path: str | Path) -> Path:
    """The folder of a version: `path` itself, or of ``REPOSITORY/NAME`` the latest version's.

    Raises
    ------
    ArtifactError
        It is neither.
    """
    path = Path(path)
    if is_version(path.name) and path.is_dir() and not list_versions(path):
        return path
    versions = list_versions(path)
    if not versions:
        raise ArtifactError(
            f"there is no model in {path}: give REPOSITORY/MODEL/VERSION, or REPOSITORY/MODEL for the latest"
        )
    return path / str(versions[-1])


def signature(folder: str | Path) -> Signature:
    """The signature of a version's folder: equal as long as nothing directly in it has changed."""
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    status = entry.stat()
                except OSError:  # a link that leads nowhere, or a file that has just gone
                    found.append((entry.name, 0, 0, 0))
                else:
                    found.append((entry.name, status.st_ino, status.st_size, status.st_mtime_ns))
    except OSError as error:
        return (("", error.errno or 0, 0, 0),)
    return tuple(sorted(found))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return True  # what it is can't be told; opening it will


def _has_versions(model_folder: Path) -> bool:
    try:
        return bool(list_versions(model_folder))
    except ArtifactError:
        return True
