"""The encoding of the columns as a part of the exported graph.

Every categorical column looks up a row of its table: one for each category, one for missing values, and one
for unseen ones. All tables lie in one, so that the number of operations does not grow with the columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from onnx import TensorProto

from dropserve_models.training.encoding import Encoding, one_hot_table, seen_positions
from dropserve_models.training.levelling import FARTHEST
from dropserve_models.training.onnx_graph import Graph
from dropserve_models.training.table import Floats


def encode(graph: Graph, features: str, encoding: Encoding, embeddings: Sequence[Floats]) -> str:
    """Add the operations from `features` [rows, columns] to the inputs of the first linear layer.

    Parameters
    ----------
    embeddings : sequence of ndarray [positions, width]
        The table of each embedded column.
    """
    layout = encoding.layout
    if layout.plain:
        return _level(graph, features, encoding)
    parts = _numbers(graph, features, encoding) if layout.numbers else []
    if layout.one_hot or layout.embedded:
        parts.append(_categories(graph, features, encoding, embeddings))
    return graph.node("encode", "Concat", parts, axis=1) if len(parts) > 1 else parts[0]


def _numbers(graph: Graph, features: str, encoding: Encoding) -> list[str]:
    """Numbers, and the indicators of those that are missing."""
    layout = encoding.layout
    numbers = features
    if len(layout.numbers) < layout.features:
        numbers = _columns(graph, "numbers", features, layout.numbers)
    if not layout.indicated:
        return [_level(graph, numbers, encoding)]
    missing = graph.node("missing", "IsNaN", [numbers])
    means = graph.constant("missing/mean", encoding.scaling.mean)
    filled = graph.node("missing", "Where", [missing, means, numbers])
    if len(layout.indicated) < len(layout.numbers):
        missing = _columns(graph, "missing", missing, layout.indicated)
    indicators = graph.node("missing", "Cast", [missing], to=TensorProto.FLOAT)
    indicators = graph.node("missing", "Sub", [indicators, graph.constant("missing/rate", encoding.missing)])
    if not encoding.telling.all():
        factors = graph.constant("missing/telling", encoding.telling.astype(np.float32))
        indicators = graph.node("missing", "Mul", [indicators, factors])
    return [_level(graph, filled, encoding), indicators]


def _level(graph: Graph, numbers: str, encoding: Encoding) -> str:
    """Numbers, none of them missing, standardised and levelled off."""
    found, limit = graph.scale("standardise", numbers, encoding.scaling), encoding.layout.limit
    if not limit:
        return found

    def constant(name: str, value: float) -> str:
        return graph.constant(f"level_off/{name}", np.array(value, np.float32))

    ends = [constant("lowest", -FARTHEST), constant("highest", FARTHEST)]
    found = graph.node("level_off", "Clip", [found, *ends])
    square = graph.node("squared", "Mul", [found, found])
    bend = graph.node("level_off", "Mul", [square, constant("bend", limit**-2)])
    root = graph.node("level_off", "Sqrt", [graph.node("level_off", "Add", [bend, constant("one", 1.0)])])
    return graph.node("level_off", "Div", [found, root])


def _categories(graph: Graph, features: str, encoding: Encoding, embeddings: Sequence[Floats]) -> str:
    """The categorical columns: one-hot units, then embeddings."""
    layout = encoding.layout
    columns = (*layout.one_hot, *layout.embedded)
    tables = []
    for number, (one, frequencies) in enumerate(zip(columns, encoding.frequencies, strict=True)):
        tables.append(
            one_hot_table(one, frequencies)
            if number < len(layout.one_hot)
            else embeddings[number - len(layout.one_hot)][seen_positions(one, frequencies)]
        )
    width = max(table.shape[1] for table in tables)
    whole = np.concatenate([np.pad(table, ((0, 0), (0, width - table.shape[1]))) for table in tables])
    start = np.cumsum([0, *(len(table) for table in tables[:-1])])

    def constants(name: str, values: ArrayLike) -> str:
        return graph.constant(f"categories/{name}", np.array(values, np.float32))

    codes = _columns(graph, "categories", features, [one.index for one in columns])
    # A code that a whole number from 0 to the last one is left as it is by this: any other is no category.
    highest = constants("highest", [one.categories - 1 for one in columns])
    within = graph.node(
        "categories", "Max", [codes, graph.constant("categories/zero", np.zeros(1, np.float32))]
    )
    within = graph.node("categories", "Floor", [graph.node("categories", "Min", [within, highest])])
    known = graph.node("categories", "Equal", [within, codes])
    place = graph.node("categories", "Add", [codes, constants("start", start)])
    missing = constants("missing", start + [one.missing for one in columns])
    unseen = constants("unseen", start + [one.unseen for one in columns])
    others = graph.node(
        "uncategorised", "Where", [graph.node("categories", "IsNaN", [codes]), missing, unseen]
    )
    place = graph.node("categories", "Where", [known, place, others])
    index = graph.node("categories", "Cast", [place], to=TensorProto.INT64)
    found = graph.node("lookup", "Gather", [graph.constant("lookup/table", whole), index], axis=0)
    shape = graph.constant("lookup/shape", np.array([-1, width * len(columns)], np.int64))
    flat = graph.node("lookup", "Reshape", [found, shape])
    used = np.concatenate([number * width + np.arange(table.shape[1]) for number, table in enumerate(tables)])
    return flat if len(used) == width * len(columns) else _columns(graph, "inputs", flat, used)


def _columns(graph: Graph, part: str, x: str, columns: ArrayLike) -> str:
    index = graph.constant(f"{part}/columns", np.array(columns, np.int64))
    return graph.node(part, "Gather", [x, index], axis=1)
