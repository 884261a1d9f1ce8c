from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from dropserve_models.columns import Column
from dropserve_models.training.encoding import Encoding
from dropserve_models.training.encoding_graph import encode
from dropserve_models.training.export import IR_VERSION, OPSET, run
from dropserve_models.training.layout import Layout, default_width
from dropserve_models.training.onnx_graph import Graph
from dropserve_models.training.standardise import Scaling

NAN = np.nan
COLUMNS = (
    Column("number", (), True),
    Column("category", ("a", "b", "c")),
    Column(),
    Column("category", ("d", "e"), True),
)
TRAINING = np.array([[1, 0, 5, 0], [3, 0, 7, 0], [NAN, 1, 9, NAN], [NAN, 0, 11, 0]], np.float32)


def test_the_inputs_of_one_hot_columns() -> None:
    """Numbers standardised, the mean for missing ones; then an indicator; then categories; all centred."""
    encoding = Encoding.of(TRAINING, Layout.of(COLUMNS, 4))
    rows = np.array([[4, 1, 8, NAN], [NAN, 2, 8, 0], [2, -1, 8, 1], [2, 0.5, 8, 7]], np.float32)
    root = np.sqrt(5)
    np.testing.assert_allclose(encoding.scaling.mean, [2, 8])
    np.testing.assert_allclose(encoding.scaling.std, [1, root], rtol=1e-6)
    seen = [-0.75, 0.75, 0.0]  # of b; c is in no training row
    np.testing.assert_allclose(
        encoding.apply(rows),
        [
            [2, 0, -0.5, *seen, -0.75, 0, 0.75],
            [0, 0, 0.5, 0, 0, 0, 0.25, 0, -0.25],
            [0, 0, -0.5, 0, 0, 0, 0, 0, 0],  # what no training row had is the average of all: zeros
            [0, 0, -0.5, 0, 0, 0, 0, 0, 0],
        ],
        atol=1e-6,
    )
    np.testing.assert_allclose(encoding.apply(TRAINING).mean(axis=0), 0, atol=1e-6)


def test_positions_of_embedded_columns() -> None:
    layout = Layout.of(COLUMNS, 4, width=2)
    assert layout.embeddings == ((5, 2), (4, 2))
    assert layout.inputs == 2 + 1 + 4
    encoding = Encoding.of(TRAINING, layout)
    rows = np.array([[4, 1, 8, NAN], [NAN, 2, 8, 0], [2, -1, 8, 1], [2, NAN, 8, 7]], np.float32)
    np.testing.assert_array_equal(encoding.apply(rows)[:, 3:], [[1, 2], [4, 0], [4, 3], [4, 3]])
    np.testing.assert_allclose(encoding.averages()[0], [0.75, 0.25, 0, 0])
    np.testing.assert_allclose(encoding.averages()[1], [0.75, 0, 0.25])


def test_rows_without_missing_values_teach_nothing_about_them() -> None:
    encoding = Encoding.of(TRAINING[:2], Layout.of(COLUMNS, 4))
    np.testing.assert_allclose(encoding.apply(TRAINING[2:3])[0, [0, 2]], 0)  # the mean, and no word of it


def test_numbers_where_no_training_row_had_any_are_the_mean() -> None:
    table = np.array([[1, NAN], [3, NAN], [5, 4e4], [7, NAN]], np.float32)
    layout = Layout.of((Column(), Column("number", (), True)), 2)
    encoding = Encoding.of(table[:2], layout)
    np.testing.assert_array_equal(encoding.apply(table)[:, 1:], 0.0)
    graph = Graph()
    encoded = encode(graph, "features", encoding, [])
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "encoding",
            [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["rows", 2])],
            [helper.make_tensor_value_info(encoded, TensorProto.FLOAT, ["rows", 3])],
            initializer=graph.initializers,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    found = run(model.SerializeToString(), table)[encoded]
    np.testing.assert_array_equal(found, encoding.apply(table))


def test_plain_columns_are_standardised_and_nothing_else() -> None:
    features = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    layout = Layout.of((), 3)
    assert layout.plain
    assert layout.inputs == 3
    expected = Scaling.of(features).apply(features)
    np.testing.assert_array_equal(Encoding.of(features, layout).apply(features), expected)


def test_scales_leave_missing_values_out() -> None:
    values = np.random.default_rng(0).normal(size=(30, 4)) * 7 + 3
    values[::3, 0] = values[1:, 1] = NAN
    values[:, 2] = NAN
    scaling = Scaling.of(values)
    np.testing.assert_allclose(
        scaling.mean, [np.nanmean(values[:, 0]), values[0, 1], 0, values[:, 3].mean()], rtol=1e-6
    )
    np.testing.assert_allclose(scaling.std, [np.nanstd(values[:, 0]), 1, 1, values[:, 3].std()], rtol=1e-6)
    assert scaling.constant.tolist() == [False, True, True, False]


def test_constant_columns_are_told() -> None:
    columns = (
        Column(),
        Column("category", ("a", "b")),
        Column("number", (), True),
        Column(accepts_missing=True),
    )
    rows = np.array([[1, 0, 4, 4], [1, 0, 4, NAN], [1, 0, 4, 4]], np.float32)
    assert Encoding.of(rows, Layout.of(columns, 4)).constant().tolist() == [0, 1, 2]


@pytest.mark.parametrize(("categories", "width"), [(2, 0), (20, 0), (21, 9), (100, 21), (50_000, 50)])
def test_default_widths(categories: int, width: int) -> None:
    assert default_width(categories) == width
