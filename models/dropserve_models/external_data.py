"""Weights that an ONNX model keeps in files beside it: found, confined to the folder, and read in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from google.protobuf.message import Message
from onnx import ModelProto, TensorProto

from dropserve_models.errors import ArtifactError


def external_tensors(message: Message) -> Iterator[TensorProto]:
    """Every tensor anywhere in `message` whose bytes lie in another file."""
    if isinstance(message, TensorProto):
        if message.data_location == TensorProto.EXTERNAL:
            yield message
        return
    for _, value in message.ListFields():
        if isinstance(value, Message):
            yield from external_tensors(value)
        elif not isinstance(value, str | bytes | int | float):
            for element in value:
                if not isinstance(element, Message):
                    break  # a repeated scalar
                yield from external_tensors(element)


def inline(model: ModelProto, folder: Path, limit: int) -> None:
    """Replace every reference to a file of `folder` by that file's bytes.

    Parameters
    ----------
    limit : int
        The most bytes to read, all tensors together.

    Raises
    ------
    ArtifactError
        A location is absolute, leaves `folder` (by ``..`` or by a link), or can't be read.
    """
    left = limit
    for tensor in external_tensors(model):
        tensor.raw_data = _read(tensor, folder, left)
        tensor.data_location = TensorProto.DEFAULT
        del tensor.external_data[:]
        left -= len(tensor.raw_data)


def _read(tensor: TensorProto, folder: Path, limit: int) -> bytes:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    try:
        path = (folder / location).resolve()
        if not location or Path(location).is_absolute() or not path.is_relative_to(folder.resolve()):
            raise ArtifactError(
                f"model.onnx is refused: tensor {tensor.name!r} has its data at {location!r}, "
                f"outside {folder}"
            )
        offset = int(entries.get("offset", 0))
        length = int(entries.get("length", path.stat().st_size - offset))
        if offset < 0 or length < 0 or not path.is_file():
            raise ValueError("not a part of a regular file")
        if length > limit:
            raise ValueError("more than 2 GiB with the model's other data")
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read(length)
        if len(data) != length:
            raise ValueError(f"the file ends {length - len(data)} bytes too early")
    except (OSError, ValueError, RuntimeError) as error:
        raise ArtifactError(
            f"can't read the data of tensor {tensor.name!r} of model.onnx from {location!r}: {error}"
        ) from error
    return data
