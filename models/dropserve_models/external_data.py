"""Weights that an ONNX model keeps in files beside it: found, confined to the folder, and read in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from google.protobuf.message import Message
from onnx import ModelProto, TensorProto

from dropserve_models.errors import ArtifactError, shortened
from dropserve_models.messages import walk


def external_tensors(message: Message) -> Iterator[TensorProto]:
    """Every tensor anywhere in `message` whose bytes lie in another file."""
    return (
        inner
        for inner in walk(message)
        if isinstance(inner, TensorProto) and inner.data_location == TensorProto.EXTERNAL
    )


def inline(model: ModelProto, folder: Path, limit: int) -> None:
    """Replace every reference to a file of `folder` by that file's bytes.

    Parameters
    ----------
    limit : int
        The most bytes that the model may have with them.

    Raises
    ------
    ArtifactError
        A location is absolute, leaves `folder` (by ``..`` or by a link), or can't be read.
    """
    left = limit - model.ByteSize()
    for tensor in list(external_tensors(model)):
        tensor.raw_data = _read(tensor, folder, left)
        tensor.data_location = TensorProto.DEFAULT
        del tensor.external_data[:]
        left -= len(tensor.raw_data)


def _read(tensor: TensorProto, folder: Path, limit: int) -> bytes:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    name = shortened(tensor.name)
    try:
        path = (folder / location).resolve()
        if not location or Path(location).is_absolute() or not path.is_relative_to(folder.resolve()):
            raise ArtifactError(
                f"model.onnx is refused: tensor {name} has its data at {shortened(location)}, "
                f"outside {folder}"
            )
        offset = int(entries.get("offset", 0))
        length = int(entries.get("length", path.stat().st_size - offset))
        if offset < 0 or length < 0 or not path.is_file():
            raise ValueError("not a part of a regular file")
        if length > limit:
            raise ValueError("more than the model may have in all")
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read(length)
        if len(data) != length:
            raise ValueError(f"the file ends {length - len(data)} bytes too early")
    except (OSError, ValueError, RuntimeError) as error:
        raise ArtifactError(
            f"can't read the data of tensor {name} of model.onnx from {shortened(location)}: {error}"
        ) from error
    return data
