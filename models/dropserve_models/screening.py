"""What is refused of an ONNX graph before anything is made of it: sizes that only a hostile file declares.

A few bytes can declare a tensor of terabytes, or functions that call each other until billions of nodes
have been inlined. ONNX Runtime would take them at their word.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod

import onnx
from google.protobuf.message import Message
from onnx import FunctionProto, NodeProto, SparseTensorProto, TensorProto, TypeProto, ValueInfoProto

from dropserve_models.errors import ArtifactError, shortened
from dropserve_models.messages import walk

MAX_NODES = 10_000
"""Most nodes, those inside of functions and branches counted as often as they are inlined."""

MAX_ROW_BYTES = 2**28
"""Most bytes that a value of the graph may take for one row."""

_MAX_FUNCTION_DEPTH = 64

_ITEM_BYTES: dict[int, int] = {
    TensorProto.FLOAT: 4,
    TensorProto.DOUBLE: 8,
    TensorProto.FLOAT16: 2,
    TensorProto.BFLOAT16: 2,
    TensorProto.INT8: 1,
    TensorProto.INT16: 2,
    TensorProto.INT32: 4,
    TensorProto.INT64: 8,
    TensorProto.UINT8: 1,
    TensorProto.UINT16: 2,
    TensorProto.UINT32: 4,
    TensorProto.UINT64: 8,
    TensorProto.BOOL: 1,
}

# Their results are as large as a constant says, not as their inputs are.
_MAKERS = frozenset(
    (
        *("CenterCropPad", "Col2Im", "ConstantOfShape", "Expand", "EyeLike", "MaxUnpool", "OneHot", "Pad"),
        *("RandomNormal", "RandomUniform", "Range", "Resize", "Tile", "Upsample"),
    )
)


def screen(model: onnx.ModelProto) -> None:
    """Raise ArtifactError where `model`, its weights all inside, declares what no honest model does."""
    makers = False
    nodes: list[NodeProto] = []
    for message in walk(model.graph):
        if isinstance(message, NodeProto):
            nodes.append(message)
            makers = makers or message.op_type in _MAKERS
            if len(nodes) > MAX_NODES:
                raise _too_many_nodes()
        else:
            _check(message)
    functions = {_key(function): function for function in model.functions}
    if functions:
        for function in functions.values():
            for message in walk(function):
                makers = makers or (isinstance(message, NodeProto) and message.op_type in _MAKERS)
                _check(message)
        _expanded(nodes, functions, {}, 0)
    if makers:
        _check_made(model)


def _check(message: Message) -> None:
    if isinstance(message, TensorProto):
        _check_tensor(message)
    elif isinstance(message, ValueInfoProto):
        _check_value(message)
    elif isinstance(message, SparseTensorProto) and prod(message.dims) * 4 > MAX_ROW_BYTES:
        raise _too_large("a sparse tensor", message.dims)


def _check_tensor(tensor: TensorProto) -> None:
    """A tensor's shape must be that of the data it holds."""
    elements = prod(tensor.dims)
    item_bytes = _ITEM_BYTES.get(tensor.data_type)
    if tensor.HasField("raw_data") and item_bytes is not None:
        fits = len(tensor.raw_data) == elements * item_bytes
    else:
        fits = elements <= 2 * tensor.ByteSize()  # the smallest type has half a byte
    if not fits or min(tensor.dims, default=0) < 0:
        raise ArtifactError(
            f"model.onnx is refused: tensor {shortened(tensor.name)} declares {_shape(tensor.dims)}, "
            "which is not what it holds"
        )


def _check_value(value: ValueInfoProto) -> None:
    if value.type.WhichOneof("value") == "tensor_type":
        dims = _row(value.type.tensor_type)
        if prod(dims) * _ITEM_BYTES.get(value.type.tensor_type.elem_type, 1) > MAX_ROW_BYTES:
            raise _too_large(shortened(value.name), dims)


def _row(tensor: TypeProto.Tensor) -> list[int]:
    """The sizes of a value's dimensions, 1 where they are not known."""
    return [dim.dim_value if dim.dim_value > 0 else 1 for dim in tensor.shape.dim]


def _check_made(model: onnx.ModelProto) -> None:
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception as error:
        raise ArtifactError(
            f"model.onnx is refused: its shapes contradict each other: {_line(error)}"
        ) from error
    for value in inferred.graph.value_info:
        _check_value(value)


_Functions = Mapping[tuple[str, str, str], FunctionProto]


def _expanded(
    nodes: Iterable[NodeProto], functions: _Functions, known: dict[tuple[str, str, str], int], depth: int
) -> int:
    """How many nodes these are once every function they call is inlined."""
    if depth > _MAX_FUNCTION_DEPTH:
        raise ArtifactError(
            "model.onnx is refused: its functions call each other in a circle, or more than "
            f"{_MAX_FUNCTION_DEPTH} deep"
        )
    count = 0
    for node in nodes:
        key = _key(node)
        if key in functions and key not in known:
            inner = (message for message in walk(functions[key]) if isinstance(message, NodeProto))
            known[key] = _expanded(inner, functions, known, depth + 1)
        count += known.get(key, 1)
        if count > MAX_NODES:
            raise _too_many_nodes()
    return count


def _key(called: FunctionProto | NodeProto) -> tuple[str, str, str]:
    name = called.name if isinstance(called, FunctionProto) else called.op_type
    return called.domain if called.domain != "ai.onnx" else "", name, called.overload


def _too_many_nodes() -> ArtifactError:
    return ArtifactError(f"model.onnx is refused: it has more than {MAX_NODES:,} nodes")


def _too_large(what: str, dims: Iterable[int]) -> ArtifactError:
    return ArtifactError(
        f"model.onnx is refused: {what} declares {_shape(dims)}, more than {MAX_ROW_BYTES >> 20} MiB a row"
    )


def _shape(dims: Iterable[int]) -> str:
    return shortened(" x ".join(map(str, dims)) or "one element").strip("'")


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
