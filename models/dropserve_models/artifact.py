"""An artifact on disk, ``REPOSITORY/NAME/VERSION/{model.onnx, manifest.json}``: opened, listed, published.

What is opened is checked first, and what is published appears whole or not at all. Nothing is ever
unpickled.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dropserve_models.errors import ArtifactError
from dropserve_models.manifest import Manifest, sha256_of

MODEL_FILE = "model.onnx"
MANIFEST_FILE = "manifest.json"

MAX_MODEL_BYTES = 2**31 - 1  # protobuf's own limit
MAX_MANIFEST_BYTES = 2**24

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}", re.ASCII)
_VERSION = re.compile(r"[1-9][0-9]{0,17}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Artifact:
    """One version of one model, verified.

    Attributes
    ----------
    folder : Path
    name, version : str, int
        From the folder: ``REPOSITORY/NAME/VERSION``.
    model_bytes : bytes
        A serialised ONNX ModelProto with all its weights inside.
    manifest : Manifest or None
        None where the folder holds model.onnx alone.
    """

    folder: Path
    name: str
    version: int
    model_bytes: bytes
    manifest: Manifest | None


def check_model_name(name: str) -> str:
    """Return `name`; raise ArtifactError where it can't be a model's."""
    if not _NAME.fullmatch(name):
        raise ArtifactError(
            f"{name!r} can't be a model's name: up to 128 letters, digits, '_', '-' and '.', "
            "the first of them not '.'"
        )
    return name


def open_artifact(folder: str | Path) -> Artifact:
    """Read and verify one version of a model.

    Parameters
    ----------
    folder : str or Path
        ``REPOSITORY/NAME/VERSION``, with model.onnx and, where it was published by dropserve,
        manifest.json.

    Raises
    ------
    ArtifactError
        model.onnx is missing, too large, no ONNX model, has another digest than the manifest says, or
        refers to data outside the folder; the manifest is malformed; the folder is not named by a
        positive integer.
    """
    folder = Path(os.path.abspath(folder))
    name = check_model_name(folder.parent.name)
    if not _VERSION.fullmatch(folder.name):
        raise ArtifactError(f"{folder} is not REPOSITORY/NAME/VERSION: the version is a positive integer")
    if not folder.is_dir():
        raise ArtifactError(f"there is no folder {folder}")
    manifest = None
    if os.path.lexists(folder / MANIFEST_FILE):
        manifest = Manifest.from_json(_read(folder, MANIFEST_FILE, MAX_MANIFEST_BYTES))
    model_bytes = _read(folder, MODEL_FILE, MAX_MODEL_BYTES)
    if manifest is not None and sha256_of(model_bytes) != manifest.sha256:
        raise ArtifactError(
            f"{folder / MODEL_FILE} is not the file that was published: "
            f"its SHA-256 differs from {MANIFEST_FILE}'s"
        )
    return Artifact(
        folder, name, int(folder.name), _self_contained(model_bytes, folder, manifest is not None), manifest
    )


def list_versions(model_folder: str | Path) -> list[int]:
    """Versions in ``REPOSITORY/NAME``, ascending; none where there is no such folder."""
    try:
        return sorted(
            int(e.name) for e in os.scandir(model_folder) if _VERSION.fullmatch(e.name) and e.is_dir()
        )
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ArtifactError(f"can't list {model_folder}: {error.strerror}") from error


def list_models(repository: str | Path) -> list[str]:
    """Names of the models that have at least one version, sorted."""
    try:
        names = sorted(e.name for e in os.scandir(repository) if _NAME.fullmatch(e.name) and e.is_dir())
    except OSError as error:
        raise ArtifactError(f"can't list the repository {repository}: {error.strerror}") from error
    return [name for name in names if list_versions(Path(repository) / name)]


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
    a version. Concurrent publishers get versions of their own.

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
    staging = model_folder / f".publish-{uuid.uuid4().hex}"
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
    return target


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


def _read(folder: Path, name: str, limit: int) -> bytes:
    path = folder / name
    try:
        if not path.resolve(strict=True).is_relative_to(folder.resolve()):
            raise ArtifactError(f"{path} is refused: it is a link to a file outside its folder")
        if not path.is_file():
            raise ArtifactError(f"{path} is not a regular file")
        with path.open("rb") as file:
            data = file.read(min(os.fstat(file.fileno()).st_size, limit) + 1)
    except FileNotFoundError as error:
        raise ArtifactError(f"there is no {path}") from error
    except (OSError, RuntimeError) as error:
        raise ArtifactError(f"can't read {path}: {error}") from error
    if len(data) > limit:
        raise ArtifactError(f"{path} is larger than the {limit} bytes allowed")
    return data


def _self_contained(model_bytes: bytes, folder: Path, digested: bool) -> bytes:
    from google.protobuf.message import DecodeError
    from onnx import ModelProto

    from dropserve_models import external_data

    path = folder / MODEL_FILE
    try:
        model = ModelProto.FromString(model_bytes)
    except DecodeError as error:
        raise ArtifactError(f"{path} is damaged or no ONNX model: it can't be parsed") from error
    if not model.graph.output:
        raise ArtifactError(f"{path} is damaged or no ONNX model: it has no outputs")
    if next(external_data.external_tensors(model), None) is None:
        return model_bytes
    if digested:
        raise ArtifactError(
            f"{path} is refused: {MANIFEST_FILE}'s digest does not cover the files it keeps weights in; "
            "store them inside model.onnx"
        )
    external_data.inline(model, folder, MAX_MODEL_BYTES - len(model_bytes))
    return model.SerializeToString()


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
