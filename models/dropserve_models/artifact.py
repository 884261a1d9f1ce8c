"""An artifact on disk, ``REPOSITORY/NAME/VERSION/{model.onnx, manifest.json}``: checked, and opened.

Whoever may write to the repository decides what is read here, so nothing in it is trusted: files outside
the version's folder are not read, sizes are bounded, and nothing is ever unpickled.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from dropserve_models.errors import ArtifactError
from dropserve_models.listing import is_model_name, is_version
from dropserve_models.manifest import Manifest, sha256_of

MODEL_FILE = "model.onnx"
MANIFEST_FILE = "manifest.json"

MAX_MODEL_BYTES = 2**31 - 1  # protobuf's own limit
MAX_MANIFEST_BYTES = 2**24


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
    if not is_model_name(name):
        raise ArtifactError(
            f"{name!r} can't be a model's name: up to 128 letters, digits, '_', '-' and '.', "
            "the first of them not '.'"
        )
    return name


def open_artifact(folder: str | Path, max_bytes: int = MAX_MODEL_BYTES) -> Artifact:
    """Read and verify one version of a model.

    Parameters
    ----------
    folder : str or Path
        ``REPOSITORY/NAME/VERSION``, with model.onnx and, where it was published by dropserve,
        manifest.json.
    max_bytes : int
        The most that the model may have, the weights in other files included.

    Raises
    ------
    ArtifactError
        model.onnx is missing, too large, no ONNX model, has another digest than the manifest says,
        refers to data outside the folder, or declares what can't be (see `screening`); the manifest is
        malformed; the folder is not named by a positive integer, or is a link out of the repository.
    """
    folder = Path(os.path.abspath(folder))
    name = check_model_name(folder.parent.name)
    if not is_version(folder.name):
        raise ArtifactError(f"{folder} is not REPOSITORY/NAME/VERSION: the version is a positive integer")
    if not folder.is_dir():
        raise ArtifactError(f"there is no folder {folder}")
    if not folder.resolve().is_relative_to(folder.parent.parent.resolve()):
        raise ArtifactError(f"{folder} is refused: it is a link out of the repository")
    manifest = None
    if os.path.lexists(folder / MANIFEST_FILE):
        document = _read(folder, MANIFEST_FILE, MAX_MANIFEST_BYTES)
        manifest = Manifest.from_json(document, folder / MANIFEST_FILE)
    model_bytes = _read(folder, MODEL_FILE, min(max_bytes, MAX_MODEL_BYTES))
    if manifest is not None and sha256_of(model_bytes) != manifest.sha256:
        raise ArtifactError(
            f"{folder / MODEL_FILE} is not the file that was published: "
            f"its SHA-256 differs from {MANIFEST_FILE}'s"
        )
    model_bytes = _self_contained(model_bytes, folder, manifest is not None, min(max_bytes, MAX_MODEL_BYTES))
    return Artifact(folder, name, int(folder.name), model_bytes, manifest)


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


def _self_contained(model_bytes: bytes, folder: Path, digested: bool, max_bytes: int) -> bytes:
    from google.protobuf.message import DecodeError
    from onnx import ModelProto

    from dropserve_models import external_data, screening

    path = folder / MODEL_FILE
    try:
        model = ModelProto.FromString(model_bytes)
    except DecodeError as error:
        raise ArtifactError(f"{path} is damaged or no ONNX model: it can't be parsed") from error
    if not model.graph.output:
        raise ArtifactError(f"{path} is damaged or no ONNX model: it has no outputs")
    if next(external_data.external_tensors(model), None) is None:
        screening.screen(model)
        return model_bytes
    if digested:
        raise ArtifactError(
            f"{path} is refused: {MANIFEST_FILE}'s digest does not cover the files it keeps weights in; "
            "store them inside model.onnx"
        )
    external_data.inline(model, folder, max_bytes)
    screening.screen(model)
    return model.SerializeToString()
